"""What a newcomer types: the data and the time, and no other key; the network and all else are planned."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.commands import REPOSITORY, command

from segpipe.stored import read_plan, read_yaml

LUNGS = "data.labels={background:0,lung:1}"


def body(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with an organ that a patch at full resolution does not hold, and its labels."""
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-0.1, 0.1, len(shape))
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    scaled = [(axis - move) / 0.6 for axis, move in zip(axes, shift, strict=True)]
    labels = sum(axis**2 for axis in scaled) < 1
    image = 90 + 80 * labels + rng.normal(0, 8, shape)
    return image, labels.astype(np.uint8)


def write_radiographs(root: Path, number: int) -> None:
    for index in range(number):
        image, labels = body((512, 512), index)
        for folder, pixels in (("images", image), ("labels", labels)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"chest{index}.png")


def write_scans(root: Path, number: int) -> None:
    for index in range(number):
        image, labels = body((160, 144, 20), index)
        affine = np.diag([1.5, 1.5, 6.0, 1.0])
        for folder, voxels in (("images", image.astype(np.float32)), ("labels", labels)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, affine), root / folder / f"heart{index}.nii.gz")


def test_an_image_that_no_patch_holds_is_trained_on_and_segmented(tmp_path: Path) -> None:
    write_radiographs(tmp_path / "chests", 6)
    call = ["data=folder", "data.root=chests", "model=unet2d", LUNGS]
    trained = command("train.py", *call, "trainer.max_time=00:00:00:08", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    plan = read_plan(tmp_path, read_yaml(tmp_path / "runs/latest/plan.yaml"))
    assert plan.spacing_mm[:2] == [4, 4]
    assert "a patch sees whole scans" in trained.stdout
    call = ["checkpoint=runs/latest", "input=chests/images", "truth=chests/labels", "output=masks"]
    predicted = command("predict.py", *call, folder=tmp_path, pictures=False)
    assert predicted.returncode == 0, predicted.stderr
    found = np.asarray(Image.open(tmp_path / "masks/chest0.png"))
    assert found.shape == (512, 512)
    assert 0 < found.mean() < 1, "something, and not all"


def test_a_scan_that_no_patch_holds_is_planned(tmp_path: Path) -> None:
    write_scans(tmp_path / "hearts", 4)
    call = ["data=folder", "data.root=hearts", LUNGS, "mode=describe"]
    done = command("train.py", *call, "trainer.max_time=00:00:10:00", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a patch sees" in done.stdout


@pytest.mark.parametrize("name", ["chaos_mr_t2_0", "mouse_brain", "usgra", "axon_sem", "wbc"])
def test_real_data_are_planned(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path])
    from datasets import SETS, write_cases

    data_set = next(known for known in SETS if known.name == name)
    write_cases(data_set, real_data, tmp_path / "cases.csv")
    call = ["data=table", "data.root=cases.csv", f"model={data_set.model}", "mode=describe"]
    call.append("hydra.run.dir=run")
    if data_set.names:
        call.append(f"data.labels={data_set.names}")
    done = command("train.py", *call, "trainer.max_time=00:00:10:00", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    network = json.loads((tmp_path / "run/network.json").read_text())
    assert network["parameters"] > 1e5
