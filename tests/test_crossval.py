"""Cross-validation as one command: folds that go on, pooled scores, an ensemble that predicts."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint
from support.commands import TINY, command

from segpipe.checkpoint import load
from segpipe.config.compose import check
from segpipe.config.train import Train
from segpipe.ensembles import find_all, load_ensemble, read_ensemble, write_ensemble
from segpipe.errors import ConfigError
from segpipe.postprocess import PostProcess

CALL = ["mode=crossval", "data.folds=2", *TINY, "hydra.run.dir=cv", "page.cases=0"]


def test_all_folds_end_in_an_ensemble_that_predicts(tmp_path: Path) -> None:
    done = command("train.py", *CALL, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "cv"
    cases = set()
    for fold in range(2):
        split = json.loads((folder / f"fold_{fold}/split.json").read_text())
        cases |= set(split["val"])
    with (folder / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == cases
    assert len(cases) == 6
    assert len(rows) == 6 * 3
    page = (folder / "crossval.html").read_text()
    assert "6 cases in 2 folds" in page
    for fold in range(2):
        masks = list((folder / f"fold_{fold}" / "masks").glob("*.nii.gz"))
        assert len(masks) == 3, "of the cases that did not train"
        for mask in masks:
            assert f'href="fold_{fold}/masks/{mask.name}"' in page
        assert f'href="fold_{fold}/report.html"' in page
    assert "tab:folds" in (folder / "tables.tex").read_text()
    assert json.loads((folder / "postprocess.json").read_text())["cases"] == 6
    # one fold is lost, the other is left as it is
    kept = (folder / "fold_0/checkpoints/best.ckpt").stat().st_mtime_ns
    shutil.rmtree(folder / "fold_1")
    again = command("train.py", *CALL, folder=tmp_path, pictures=False)
    assert again.returncode == 0, again.stderr
    assert (folder / "fold_0/checkpoints/best.ckpt").stat().st_mtime_ns == kept
    assert (folder / "fold_1/validation.csv").is_file()
    scans = "input=data/phantom/imagesTs"
    masks = command("predict.py", "checkpoint=cv", scans, "output=masks", folder=tmp_path)
    assert masks.returncode == 0, masks.stderr
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 2


def test_the_folder_is_its_networks_and_its_own_post_processing(tmp_path: Path) -> None:
    for name in ("fold_0", "fold_1"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        write_checkpoint(tmp_path / name / "checkpoints/best.ckpt")
    chosen = PostProcess(keep_largest=["organ"])
    write_ensemble(tmp_path, ["fold_0", "fold_1"], chosen)
    files = [tmp_path / name / "checkpoints/best.ckpt" for name in ("fold_0", "fold_1")]
    assert find_all([tmp_path]) == files
    whole = load_ensemble([tmp_path])
    assert whole.postprocess == chosen
    assert len(whole.network.networks) == 2
    assert load_ensemble(files).postprocess == PostProcess()
    assert load(files[0]).postprocess == PostProcess()


@pytest.mark.parametrize("name", ["../elsewhere", "/etc"])
def test_a_folder_names_nothing_outside_it(tmp_path: Path, name: str) -> None:
    write_ensemble(tmp_path, [name], PostProcess())
    with pytest.raises(ConfigError, match="which is not below its folder"):
        read_ensemble(tmp_path)


def test_one_fold_and_all_folds_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="data.fold is one fold, but mode=crossval trains all"):
        check("train", Train, ["mode=crossval", "data.fold=0"])
