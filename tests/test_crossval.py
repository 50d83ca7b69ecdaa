"""Cross-validation as one command: folds that go on, pooled scores, an ensemble that predicts."""

import csv
import json
import shutil
from html import escape
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from support.checkpoints import write_checkpoint
from support.commands import TINY, command
from support.plans import plan

from segpipe.checkpoint import load
from segpipe.config.compose import check
from segpipe.config.train import Train
from segpipe.data.prepare import PreparedScan
from segpipe.ensembles import find_all, load_ensemble, read_ensemble, write_ensemble
from segpipe.errors import ConfigError
from segpipe.geometry import Grid, Volume
from segpipe.postprocess import PostProcess
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.maps import Maps
from segpipe.prediction.outputs import write_outputs
from segpipe.prediction.prediction import Prediction

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
    last_lines = done.stdout.split("report   ")[-1]
    sentence = last_lines.splitlines()[2]
    assert escape(sentence) in page, "the verdict ends the output, and begins the page"
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


def test_probabilities_that_only_the_search_keeps_are_not_written(tmp_path: Path) -> None:
    """The masks of a fold are written while the probabilities of its cases are in memory."""
    grid = Grid((6, 5, 4), np.eye(4))
    image = torch.zeros(1, *grid.shape)
    of = plan(labels={"background": 0, "organ": 1})
    maps = Maps(grid, 0, of.outputs, True, [])
    maps.probabilities = np.zeros((2, *grid.shape), np.uint8)
    labels = np.ones(grid.shape, np.uint8)
    found = Prediction(labels, PreparedScan(image, Volume(image, grid.affine)), maps)
    nib.save(nib.Nifti1Image(labels, grid.affine), tmp_path / "scan.nii.gz")
    scan = Scan("case", (tmp_path / "scan.nii.gz",))
    write_outputs(found, scan, of, ["mask"], tmp_path / "masks")
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["case.nii.gz"]
