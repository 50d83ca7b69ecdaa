"""Voxels that nobody has annotated: neither learnt, nor sampled, nor scored; sparse annotation, the 3D U-Net's origin."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from support.commands import TINY, command
from support.config import composed
from support.plans import fingerprint

from segpipe.data.cases import Case
from segpipe.data.inspection import inspect_case
from segpipe.data.patches import prepare_case
from segpipe.data.phantom import write_phantom
from segpipe.data.prepare import read_labels
from segpipe.geometry import Grid
from segpipe.metrics import IGNORED, dice_per_target, score_case
from segpipe.plan import Plan
from segpipe.planning.rules import make_plan
from segpipe.registry import LOSSES
from segpipe.training.loss import SegmentationLoss

LABELS = {"background": 0, "organ": 1, "vessel": 4}
REGIONS = "{both:[1,4],vessel:[4]}"


def plan(*overrides: str) -> Plan:
    return make_plan(
        composed(*overrides), fingerprint((1, 1, 1), (64, 64, 64)), ["MRI"], LABELS, "cpu"
    )


@pytest.mark.parametrize("more", [[], [f"data.regions={REGIONS}"]])
@pytest.mark.parametrize("term", [name for name in LOSSES if name != "cldice"])
def test_what_is_ignored_is_in_no_term_of_the_loss(term: str, more: list[str]) -> None:
    made = plan("data.ignore_label=9", *more)
    weights = {term: 1.0}
    loss, full = (
        SegmentationLoss(made, weights),
        SegmentationLoss(plan(*more), weights),
    )
    logits, label = (
        torch.randn(2, made.outputs, 4, 6, 8),
        torch.randint(0, 3, (2, 1, 4, 6, 8), dtype=torch.uint8),
    )
    assert float(loss(logits, label)) == pytest.approx(float(full(logits, label)), abs=1e-6)
    label[:, :, 2:] = IGNORED
    other = logits.clone()
    other[:, :, 2:] = 50 * torch.randn_like(other[:, :, 2:])
    assert float(loss(other, label)) == pytest.approx(float(loss(logits, label)), abs=1e-6)
    known = float(full(logits[:, :, :2], label[:, :, :2]))  # as if the rest were not there
    assert float(loss(logits, label)) == pytest.approx(known, abs=1e-6)
    logits.requires_grad_()
    loss(logits, torch.full_like(label, IGNORED)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_what_is_ignored_is_not_scored() -> None:
    rng = np.random.default_rng(0)
    prediction, truth = (rng.integers(0, 3, (6, 5, 4)).astype(np.uint8) for _ in range(2))
    targets = {"organ": [1], "vessel": [2]}
    open_, cut = truth.copy(), prediction.copy()
    open_[3:], cut[3:], truth[3:] = IGNORED, 0, 0
    assert score_case("a", prediction, open_, (1.0, 1.0, 1.0), targets) == score_case(
        "a", cut, truth, (1.0, 1.0, 1.0), targets
    )
    assert np.array_equal(
        dice_per_target(prediction, open_, targets), dice_per_target(cut, truth, targets)
    )


def test_ignored_voxels_are_read_and_never_the_middle_of_a_patch(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(0, 1, (12, 10, 8)).astype(np.float32)
    label = np.full(image.shape, 9, np.uint8)
    label[4] = 0
    label[4, 2:5, 2:5] = 4
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii")
    case = Case("one", (tmp_path / "image.nii",), tmp_path / "label.nii")
    made = plan("data.ignore_label=9")
    grid = Grid.of(MetaTensor(torch.zeros(1, *image.shape), torch.eye(4)))
    inside = read_labels(case, made, grid).numpy()[0]
    assert np.array_equal(inside, np.select([label == 9, label == 4], [IGNORED, 2], 0))
    prepared = prepare_case(case, made)
    assert [len(places) for places in prepared.indices] == [80 - 9, 0, 9]
    assert inspect_case(case, LABELS, 9).findings == []
    assert [found.kind for found in inspect_case(case, LABELS).findings] == ["values"]


def sparse(root: Path, slices: int) -> None:
    """Leaves annotated only some slices along each axis of every training label of a phantom, through its organs."""
    for path in sorted((root / "labelsTr").glob("*.nii.gz")):
        image = nib.load(path)
        label = np.asanyarray(image.dataobj).copy()  # type: ignore[attr-defined]
        known = np.zeros(label.shape, bool)
        for axis in range(3):
            organs = np.flatnonzero(label.any(tuple(other for other in range(3) if other != axis)))
            for place in np.quantile(organs, np.linspace(0, 1, slices + 2)[1:-1]).astype(int):
                known[(slice(None),) * axis + (place,)] = True
        label[~known] = 9
        nib.save(nib.Nifti1Image(label, image.affine, image.header), path)  # type: ignore[attr-defined]


def test_sparse_annotation_trains_and_is_scored_where_it_is_known(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data/sparse", dims=3, train=6, test=2, seed=0)
    sparse(tmp_path / "data/sparse", 3)
    tiny = [option for option in TINY if "phantom" not in option]
    arguments = ["data=decathlon", "data.root=data/sparse", "data.ignore_label=9", *tiny]
    done = command("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "runs/latest/validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"liver", "kidneys", "vessel"}
    assert any((tmp_path / "runs/latest/overlays").iterdir())
    refused = command(
        "train.py", *[one for one in arguments if "ignore" not in one], folder=tmp_path
    )
    assert "but the dataset declares only" in refused.stderr


@pytest.mark.slow
def test_three_slices_an_axis_are_nearly_as_good_as_all(tmp_path: Path) -> None:
    """Cicek 2016: mean Dice on fully annotated scans that nobody trained on, within 0.05 of full annotation."""
    write_phantom(tmp_path / "data/full", dims=3, train=24, test=6, seed=0)
    shutil.copytree(tmp_path / "data/full", tmp_path / "data/sparse")
    sparse(tmp_path / "data/sparse", 3)
    dice = {}
    for name, more in (("full", []), ("sparse", ["data.ignore_label=9"])):
        budget = ["trainer.max_steps=400", "trainer.validations=1", f"hydra.run.dir={name}"]
        done = command(
            "train.py", "data=decathlon", f"data.root=data/{name}", *more, *budget, folder=tmp_path
        )
        assert done.returncode == 0, done.stderr
        scans = [
            "input=data/full/imagesTs",
            "truth=data/full/labelsTs",
            f"output=masks_{name}",
            "overlays=false",
        ]
        assert command("predict.py", f"checkpoint={name}", *scans, folder=tmp_path).returncode == 0
        with (tmp_path / f"masks_{name}/scores.csv").open() as file:
            dice[name] = np.mean([float(row["dice"]) for row in csv.DictReader(file)])
    assert dice["full"] > 0.8
    assert dice["sparse"] > dice["full"] - 0.05
