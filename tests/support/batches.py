"""A folder of small scans with a checkpoint, and the options of a call on them."""

from pathlib import Path

import nibabel as nib
import numpy as np
from support.checkpoints import write_checkpoint

from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate

NAMES = [f"case_{number:02d}" for number in range(8)]


def write_scans(folder: Path) -> Path:
    """Write `some.ckpt` and the scans `in/case_00.nii.gz` to `in/case_07.nii.gz`."""
    write_checkpoint(folder / "some.ckpt")
    (folder / "in").mkdir()
    random = np.random.default_rng(0)
    for name in NAMES:
        voxels = random.integers(0, 900, (20, 16, 8)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])), folder / f"in/{name}.nii.gz")
    return folder


def options(folder: Path, **changed: object) -> Predict:
    """Return the options of a call on these scans."""
    given = {
        "checkpoint": str(folder / "some.ckpt"),
        "input": str(folder / "in"),
        "output": str(folder / "out"),
        "device": "cpu",
        "overlays": False,
    }
    return validate(Predict, defaults("predict") | given | changed)
