"""The methods paragraphs: every number in them is stored, and every citation has its reference."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from support.checkpoints import write_checkpoint
from support.commands import command
from support.nnunet import write_results
from support.run_folders import done

from segpipe import checkpoint
from segpipe.import_nnunet.convert import import_nnunet
from segpipe.reporting.methods import in_latex, methods, on_page, references, write_methods
from segpipe.reporting.methods_record import MethodsRecord, record_of_checkpoint, record_of_run
from segpipe.reporting.methods_words import TIMES
from segpipe.reporting.run_page import write_report
from segpipe.reporting.run_record import RunRecord

STORED = Path(__file__).parent / "stored" / "0.1.0" / "run"
WORDS = re.compile(
    r"U-Net|nnU-Net|\b[23]D\b|\[@[^\]]*\]|HD95|95th|95 %|Python [\d.]+|0\.5 and 99\.5"
)


def told(record: MethodsRecord) -> str:
    return " ".join(methods(record)).replace(TIMES, "x")


def numbers(text: str) -> set[str]:
    bare = WORDS.sub(" ", text).replace(",", "")
    return set(re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", bare))


def changed(folder: Path, name: str, values: dict[str, object]) -> None:
    stored = yaml.safe_load((folder / name).read_text())
    (folder / name).write_text(yaml.safe_dump(stored | values, sort_keys=False))


def test_a_run_ends_with_paragraphs_table_and_references(tmp_path: Path) -> None:
    folder = done(tmp_path / "run")
    write_report(folder)
    paragraphs = (folder / "methods.md").read_text()
    assert "2 cases were used for training and 3 for validation." in paragraphs
    assert "It was trained for 100 steps with 2 patches a step" in paragraphs
    assert "1,234 parameters" in paragraphs
    assert r"\toprule" in (folder / "tables.tex").read_text()
    page = (folder / "report.html").read_text()
    assert "3D U-Net (Cicek 2016)" in page
    for name in ("methods.md", "methods.tex", "methods.bib", "tables.tex"):
        assert f'href="{name}"' in page
    cited = set(re.findall(r"@(\w+)", " ".join(re.findall(r"\[@[^\]]*\]", paragraphs))))
    entries = re.findall(r"^@\w+\{(\w+),", (folder / "methods.bib").read_text(), re.MULTILINE)
    assert set(entries) == cited
    assert len(cited) > 8
    latex = (folder / "methods.tex").read_text()
    assert set(",".join(re.findall(r"\\cite\{([^}]*)\}", latex)).split(",")) == cited


def test_every_number_is_that_of_the_files(tmp_path: Path) -> None:
    folder = done(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["optim"] |= {"lr": 0.0123, "weight_decay": 0.045, "warmup": 0.07, "clip": 8.5}
    config["augment"] |= {"rotate_deg": 17.0, "scale": 0.19, "affine": 0.61}
    config["data"] |= {"fold": 3, "folds": 7}
    changed(folder, "config.yaml", config)
    changed(
        folder, "plan.yaml", {"spacing_mm": [1.21, 1.31, 2.41], "batch": 6, "patch": [24, 28, 32]}
    )
    text = told(record_of_run(RunRecord(folder)))
    for words in ("rate 0.0123", "decay 0.045", "over 7 %", "norm of 8.5", "17°", "19 % (0.61)", "fold 3 of 7",
                  "1.21 x 1.31 x 2.41 mm", "6 patches a step", "24 x 28 x 32 voxels", "the seed was 7"):  # fmt: skip
        assert words in text, words
    files = ("config.yaml", "plan.yaml", "network.json", "metrics.csv", "environment.json")
    stored = " ".join((folder / name).read_text() for name in files)
    known = {f"{float(number):.4g}" for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", stored)}
    known |= {f"{100 * float(number):.4g}" for number in known}  # percentages
    known |= {"2", "3"}  # cases, from split.json
    found = {f"{float(number):.4g}" for number in numbers(text)}
    assert found <= known, found - known


def test_slices_images_and_fine_tuned_runs(tmp_path: Path) -> None:
    folder = done(tmp_path / "run")
    plan = {"slice_axis": 2, "patch": [64, 48, 1], "strides": [[2, 2]], "kernels": [[3, 3]] * 2}
    changed(folder, "plan.yaml", plan)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"] |= {"dims": 2, "long_skips": ["concat", "gate"], "short_skips": "residual"}
    config["init"] = {
        "checkpoint": "runs/a/best.ckpt",
        "freeze": "encoder",
        "lr_scale": 0.1,
        "channels": None,
    }
    changed(folder, "config.yaml", config)
    source = {"path": "/home/me/runs/a/best.ckpt", "content": "x", "step": 4321, "data": "Organs"}
    (folder / "initial.json").write_text(json.dumps({"source": source, "states": {}, "rows": []}))
    text = told(record_of_run(RunRecord(folder)))
    for words in ("2D U-Net [@ronneberger2015unet]", "64 x 48 pixels of slices across the foot-head axis", "attention gates",
                  "residual blocks", "from the weights of best.ckpt, which had been trained for 4321 steps on Organs",
                  "the encoder was frozen", "0.1 times the learning rate"):  # fmt: skip
        assert words in text, words
    assert "/home/me" not in text, "is nobody's business"
    changed(folder, "plan.yaml", {"unit": "px2", "spacing_mm": [4.0, 4.0, 1.0]})
    assert "pixels of 4 x 4 px;" in told(record_of_run(RunRecord(folder)))


def test_networks_of_nnunet_are_not_said_to_be_trained_here(tmp_path: Path) -> None:
    write_results(tmp_path / "results")
    import_nnunet(tmp_path / "results", tmp_path / "organ.ckpt", [0])
    text = told(record_of_checkpoint(checkpoint.load(tmp_path / "organ.ckpt")))
    assert "As nnU-Net does it [@isensee2021nnunet], scans were cropped" in text
    assert "Its weights were trained by nnU-Net" in text
    for words in ("optimiser", "augmented", "steps", "validation"):
        assert words not in text


def test_a_checkpoint_and_a_run_of_an_older_version_have_methods(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.ckpt")
    write_methods(tmp_path / "m.md", record_of_checkpoint(checkpoint.load(tmp_path / "x.ckpt")))
    assert sorted(file.name for file in tmp_path.glob("m.*")) == ["m.bib", "m.md", "m.tex"]
    shutil.copytree(STORED, tmp_path / "run")
    write_report(tmp_path / "run")
    assert "It was trained for 4 steps" in (tmp_path / "run" / "methods.md").read_text()


@pytest.mark.parametrize("name", ["a_b & 50 %", "[@efron1987bootstrap]", "\\input{x}"])
def test_a_name_is_no_command_of_latex(name: str) -> None:
    latex = in_latex(f"Labels {name} were scored [@dice1945measures; @segpipe2026].")
    assert latex.endswith(r"were scored~\cite{dice1945measures,segpipe2026}.")
    assert not re.search(r"(?<!\\)[&%_]|\\input\{", latex)
    assert on_page("x [@dice1945measures; @lin2017focal].") == "x (Dice 1945; Lin 2017)."
    assert references(["no citation"]) == "\n"


def test_the_card_of_a_checkpoint_may_be_its_methods(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.ckpt")
    words = ["checkpoint=x.ckpt", "format=methods"]
    printed = command("segpipe.card", *words, folder=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert "[@cicek2016unet3d]" in printed.stdout
    written = command("segpipe.card", *words, "output=out/m.md", folder=tmp_path)
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "out/m.md").read_text().strip() == printed.stdout.strip()
    assert "@inproceedings{cicek2016unet3d" in (tmp_path / "out/m.bib").read_text()
