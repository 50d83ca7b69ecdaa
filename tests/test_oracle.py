"""`predict.py` with a network that knows the answer: what is lost or moved then is the pipeline's own fault."""

import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation
from support.affines import ORIENTATIONS
from support.commands import command
from support.config import composed
from support.plans import fingerprint
from torch.nn import init

from segpipe.batch import predict_batch
from segpipe.checkpoint import KEY, NETWORK, metadata
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.nets.build import build
from segpipe.planning.rules import make_plan

SPACING = (1.1, 0.9, 1.3)
SHAPE = (40, 46, 34)
LABELS = {"background": 0, "liver": 1, "spleen": 2, "vessel": 4}


def oracle(file: Path, factor: float) -> Path:
    """A checkpoint whose network gives back its channels, one for each label, as logits.

    Times 2 only, so that the softmax leaves a voxel that is half one label what it is.
    """
    spacing = ",".join(f"{factor * mm}" for mm in SPACING)
    options = composed(
        f"model.channels=[{len(LABELS)},8]", "model.norm=none", "model.convs=1", "model.long_skips=concat",
        f"plan.spacing=[{spacing}]", "plan.patch=[24,24,24]", "plan.normalise=none",
    )  # fmt: skip
    seen = fingerprint(SPACING, SHAPE)
    seen = replace(
        seen,
        zero_fraction=seen.zero_fraction * len(LABELS),
        foreground=seen.foreground * len(LABELS),
    )
    plan = make_plan(options, seen, list(LABELS), LABELS, "cpu")
    network = build(options.model, len(LABELS), plan.outputs, plan.strides, plan.kernels)
    for weight in network.parameters():
        init.zeros_(weight)
    for name, weight in network.named_parameters():
        middle = (slice(None), slice(None), *(size // 2 for size in weight.shape[2:]))
        if name.startswith("stem") and name.endswith("weight"):
            weight.data[middle] = torch.eye(len(LABELS))
        if name.startswith("decoder_stages") and name.endswith("weight"):  # up, then skip channels
            weight.data[middle] = torch.cat(
                [torch.zeros(len(LABELS), len(LABELS)), torch.eye(len(LABELS))], 1
            )
        if name == "heads.0.weight":
            weight.data[middle] = 2 * torch.eye(len(LABELS))
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: metadata(options.model_dump(mode="json"), plan)}, file)
    return file


def smooth_shapes() -> np.ndarray:
    """Three ellipsoids, each an id of the dataset."""
    x, y, z = np.meshgrid(
        *[np.arange(size) * mm for size, mm in zip(SHAPE, SPACING, strict=True)], indexing="ij"
    )
    truth = np.zeros(SHAPE, np.uint8)
    for number, (middle, radii) in {
        1: ((15, 18, 22), (10, 13, 14)),
        2: ((33, 14, 18), (7.5, 9, 9)),
        4: ((28, 33, 30), (11, 6.5, 8)),
    }.items():
        inside = sum(
            ((way - at) / r) ** 2 for way, at, r in zip((x, y, z), middle, radii, strict=True)
        )
        truth[(inside <= 1) & (truth == 0)] = number
    return truth


def scan_of(
    truth: np.ndarray, turn: np.ndarray, angles: tuple[float, ...]
) -> tuple[nib.Nifti1Image, np.ndarray]:
    """The shapes as a scanner with these axes stores them: an image with a channel per label, and the truth."""
    order = np.abs(turn).argmax(0)
    affine_prob = np.flip(truth.transpose(order), np.flatnonzero(turn.sum(0) < 0))
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        @ turn
        @ np.diag(np.array(SPACING)[order])
    )
    affine[:3, 3] = (-70.5, 33.25, 1000)
    channels = np.stack([affine_prob == number for number in LABELS.values()], -1)
    return nib.Nifti1Image(channels.astype(np.uint8), affine), affine_prob


@pytest.mark.parametrize(
    ("factor", "every"),
    [
        (1.0, 1),
        (0.7, 5),
        (1.6, 5),
        pytest.param(0.7, 1, marks=pytest.mark.slow),
        pytest.param(1.6, 1, marks=pytest.mark.slow),
    ],
)
def test_an_oracles_masks_lie_where_the_truth_lies(
    tmp_path: Path, factor: float, every: int
) -> None:
    """Through the command, into model space and back, half of the scans oblique.

    All 48 orders and directions of axes at the scans' own spacing; at others every fifth, which
    hold all orders of the axes.
    """
    (tmp_path / "scans").mkdir()
    truths, plain = {}, smooth_shapes()
    for number, turn in enumerate(ORIENTATIONS[::every]):
        angles = ((9.0, -14.0, 20.0), (0.0, 0.0, 0.0))[number % 2]
        image, truths[f"scan{number:02d}"] = scan_of(plain, turn, angles)
        nib.save(image, tmp_path / f"scans/scan{number:02d}.nii")
    checkpoint = oracle(tmp_path / "oracle.ckpt", factor)
    arguments = ["input=scans", "output=masks", "overlays=false", "precision=float32"]
    done = command("predict.py", f"checkpoint={checkpoint}", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, truth in truths.items():
        mask = nib.load(tmp_path / f"masks/{name}.nii.gz")
        scan = nib.load(tmp_path / f"scans/{name}.nii")
        found = np.asarray(mask.dataobj)
        assert np.array_equal(mask.affine, scan.affine)
        assert found.shape == truth.shape
        if factor == 1:
            assert np.array_equal(found, truth), name
        for label in (1, 2, 4):
            one, other = found == label, truth == label
            assert 2 * (one & other).sum() / (one.sum() + other.sum()) >= 0.97, (name, label)
            apart = np.subtract(center_of_mass(one), center_of_mass(other))
            assert np.abs(apart).max() <= 0.1, (name, label, apart)


@pytest.mark.parametrize(
    ("scans", "kills", "longest"), [(6, 3, 0.2), pytest.param(16, 20, 0.1, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_nothing_is_half_written(
    tmp_path: Path, scans: int, kills: int, longest: float
) -> None:
    """SIGKILL at random: what is there is whole, and the end is that of a batch that nobody killed.

    Each attempt runs for up to a share `longest` of the time that the whole batch takes.
    """
    (tmp_path / "scans").mkdir()
    plain = smooth_shapes()
    for number in range(scans):
        image, _ = scan_of(plain, ORIENTATIONS[3 * number], (3.0 * number, 0.0, 0.0))
        nib.save(image, tmp_path / f"scans/scan{number:02d}.nii")
    checkpoint = oracle(tmp_path / "oracle.ckpt", 0.7)

    def batch(output: str) -> int:
        given = {
            "checkpoint": str(checkpoint),
            "input": str(tmp_path / "scans"),
            "output": str(tmp_path / output),
        }
        return predict_batch(validate(Predict, defaults("predict") | given | {"device": "cpu"}))

    start = time.monotonic()
    assert batch("whole") == 0
    seconds = time.monotonic() - start
    rng, killed = random.Random(0), 0
    for _ in range(kills):
        child = multiprocessing.get_context("fork").Process(target=batch, args=("killed",))
        child.start()
        child.join(rng.uniform(0.01, longest) * seconds)
        killed += child.is_alive()
        if child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        for mask in (tmp_path / "killed").glob("[!.]*.nii.gz"):
            assert same(mask, tmp_path / "whole" / mask.name)
        for picture in (tmp_path / "killed/overlays").glob("[!.]*.png"):
            assert picture.read_bytes() == (tmp_path / "whole/overlays" / picture.name).read_bytes()
    assert killed == kills
    assert batch("killed") == 0
    assert files_under(tmp_path / "killed") == files_under(tmp_path / "whole")
    assert all(
        same(mask, tmp_path / "whole" / mask.name)
        for mask in (tmp_path / "killed").glob("*.nii.gz")
    )


def files_under(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def same(mask: Path, other: Path) -> bool:
    """Whether two masks are whole and equal, geometry included."""
    one, two = nib.load(mask), nib.load(other)
    return np.array_equal(one.affine, two.affine) and np.array_equal(
        np.asarray(one.dataobj), np.asarray(two.dataobj)
    )
