# Each target does all of its own set-up from a fresh clone; `make demo` and `make test` are all that is needed.
PYTHON ?= python3
REAL_DATA ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick docs clean

# 100 seconds of training on the phantom, then masks for its test scans, scored against the truth
demo: $(VENV)/installed
	$(BIN)/python train.py name=demo trainer.max_time=00:00:01:40 trainer.validations=4 augment=standard
	$(BIN)/python predict.py checkpoint=runs/latest input=data/phantom/imagesTs truth=data/phantom/labelsTs output=demo
	@echo "look at: runs/latest/report.html  demo/index.html  (masks: demo/*.nii.gz)"

# what CI runs; REAL_DATA=DIR also runs the tests on real scans
test: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/density.py segpipe --max-comprehensions 17 --max-nested 0.5 --max-assignments 1 --max-long-lines 0.5
	$(BIN)/python -m pytest -n 2 --dist worksteal tests $(if $(REAL_DATA),--real-data $(REAL_DATA))

# the tests alone, as CI runs them under further interpreters: make quick PYTHON=python3.13 VENV=.venv313
quick: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal tests

# the pages of docs/ with the reference of config and API: site/index.html; a warning is an error
docs: $(VENV)/documenting
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict # the variable hides Material's own notice, no warning of ours

$(VENV)/documenting: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) demo runs site data/phantom data/phantom2d
