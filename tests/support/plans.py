"""Plans and cases that are quickly made."""

from pathlib import Path

import nibabel as nib
import numpy as np
from support.config import composed

from segpipe.data.cases import Case
from segpipe.plan import Plan
from segpipe.planning.fingerprint import Fingerprint, LabelSize
from segpipe.planning.rules import make_plan

LABELS = {"background": 0, "core": 1, "edema": 2, "rim": 4}


def fingerprint(
    spacing: tuple[float, ...],
    shape: tuple[int, ...],
    box: tuple[int, ...] | None = None,
    zero_fraction: float = 0.0,
) -> Fingerprint:
    return Fingerprint(
        np.tile(spacing, (5, 1)),
        np.tile(shape, (5, 1)),
        np.tile(box or shape, (5, 1)),
        [zero_fraction],
        [(0.0, 1.0, 0.5, 0.2)],
        {1: LabelSize(5, 0.02, 1.0, 3.4, 1.0)},
    )


def plan(
    *overrides: str,
    shape: tuple[int, int, int] = (20, 16, 12),
    labels: dict[str, int] | None = None,
) -> Plan:
    options = composed("model.channels=[4,8]", *overrides)
    return make_plan(options, fingerprint((1.0, 1.0, 1.0), shape), ["MRI"], labels or LABELS, "cpu")


def case(
    folder: Path,
    seed: int = 0,
    shape: tuple[int, int, int] = (20, 16, 12),
    ids: tuple[int, ...] = (0, 1, 2, 4),
) -> Case:
    rng = np.random.default_rng(seed)
    nib.save(
        nib.Nifti1Image(rng.normal(size=shape).astype(np.float32), np.eye(4)),
        folder / f"image{seed}.nii",
    )
    nib.save(
        nib.Nifti1Image(rng.choice(ids, shape).astype(np.uint8), np.eye(4)),
        folder / f"label{seed}.nii",
    )
    return Case(f"case{seed}", (folder / f"image{seed}.nii",), folder / f"label{seed}.nii")
