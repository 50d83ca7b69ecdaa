"""A folder of small scans with a checkpoint, and the options of a call on them."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from support.checkpoints import write_checkpoint

from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.prediction.record_store import RecordStore

NAMES = [f"case_{number:02d}" for number in range(8)]


def write_scans(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Write `some.ckpt` and the scans `in/NAME.nii.gz`."""
    write_checkpoint(folder / "some.ckpt")
    (folder / "in").mkdir()
    random = np.random.default_rng(0)
    for name in names:
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


def content(output: Path) -> dict[str, tuple[str, str, dict[str, str]]]:
    """Return of each record what does not depend on when and by whom it was made."""
    found = {}
    for name, record in RecordStore(output).records.items():
        found[name] = (record.reason, record.made_from, record.files)
    return found
