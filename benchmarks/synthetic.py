"""What the benchmarks of prediction share: CT-like scans of any size, and a checkpoint that `predict.py` opens."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation
from torch import nn

from segpipe.checkpoint import KEY, NETWORK, contents
from segpipe.config.train import Train
from segpipe.data import phantom
from segpipe.plan import Fingerprint, Plan, make_plan

BODY_MM, STEP_MM = 120.0, 0.75  # the phantom's body is a newborn's: what is seen of it, and in what steps it is drawn
LABELS = {"background": 0, "liver": 1, "kidneys": 2, "vessel": 3}
CT = (-120.0, 260.0, 90.0, 70.0)  # of labelled voxels: lowest, highest, mean and deviation, in HU


def write_ct(
    path: Path, shape: Sequence[int], spacing_mm: Sequence[float], seed: int, label: Path | None = None
) -> None:
    """Writes the phantom as a CT of a body that fills the field of view, with fresh noise in each voxel.

    Args:
        path: of the scan.
        shape: voxels along its axes, which are those of LPS+.
        spacing_mm: voxel size along them.
        seed: of the body and of the noise.
        label: where the label map is written too.
    """
    chance = np.random.default_rng(seed)
    view = np.array(shape) * spacing_mm
    coarse = np.maximum(np.rint(view / view.max() * BODY_MM / STEP_MM), 8).astype(int)
    view_mm = coarse * STEP_MM
    grid = phantom._grid(
        "LPS", Rotation.identity(), np.full(2, STEP_MM), view_mm, tuple((n, n) for n in coarse), chance
    )
    image, labels = phantom._scan(grid, chance, ct=True)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    factors = np.array(shape) / coarse
    image = zoom(image, factors, order=1, grid_mode=True, mode="nearest")
    image += chance.normal(0, 20, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(np.rint(image.clip(-1024, 3071)).astype(np.int16), affine), path)
    if label is not None:
        labels = zoom(labels, factors, order=0, grid_mode=True, mode="nearest")
        nib.save(nib.Nifti1Image(labels, affine), label)


def plan_of_ct(options: Train, spacing_mm: float) -> Plan:
    """A plan for CT of one voxel size."""
    cases = np.full((1, 3), spacing_mm), np.full((1, 3), 320)
    seen = Fingerprint(*cases, cases[1], [0.0], [CT], {})
    return make_plan(options, seen, ["CT"], LABELS, "cpu")


def write_checkpoint(path: Path, options: Train, plan: Plan, network: nn.Module) -> None:
    """Writes a network as training does."""
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: contents(options.model_dump(mode="json"), plan)}, path)
