"""Every benchmark can be imported, so that none is left behind when modules move."""

import json
from pathlib import Path

import pytest
from support.commands import REPOSITORY, command

FOLDER = REPOSITORY / "benchmarks"
BENCHMARKS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_imported(name: str, tmp_path: Path) -> None:
    """In a process of its own, since some set the number of threads where they are imported."""
    script = tmp_path / "importing.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import {name}\n")
    done = command(str(script), folder=tmp_path)
    assert done.returncode == 0, done.stderr


def figures(folder: Path, *parts: str) -> dict[str, object]:
    """Return what the benchmark of a GPU measures of some of its parts, on the CPU."""
    script = folder / "measuring.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import gpu; gpu.main()\n")
    output = str(folder / "gpu.json")
    arguments = ["--tiny", "--device", "cpu", "--output", output, "--only", *parts]
    done = command(str(script), *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    known = json.loads((folder / "gpu.json").read_text())["figures"]
    found = {figure["figure"]: figure["value"] for figure in known}
    assert not [value for value in found.values() if str(value).startswith("failed")], found
    for name in found:  # printed at once, and in the table
        assert f"\n{done.stdout}".count(f"\n{name}") >= 2
    return found


def test_the_benchmark_of_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    found = figures(tmp_path, "ceilings", "waits", "step", "loader", "memory")
    assert found["waits per step"] == "of a GPU only"
    for name in ("copy", "step, tiny, as it is", "step with patches / bare step, 0 workers"):
        assert float(found[name]) > 0  # type: ignore[arg-type]


@pytest.mark.slow
def test_it_predicts_and_trains(tmp_path: Path) -> None:
    found = figures(tmp_path, "prediction", "training")
    assert float(found["prediction, whole command / network alone"]) > 1  # type: ignore[arg-type]
    assert 0 <= float(found["training, highest Dice"]) <= 1  # type: ignore[arg-type]
