"""Nobody waits for torch, MONAI or Lightning who only asks for help or has mistyped a key."""

import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.checkpoints import write_checkpoint
from support.commands import REPOSITORY

HEAVY = (
    "torch",
    "monai",
    "pytorch_lightning",
    "nibabel",
    "matplotlib",
    "tensorboard",
    "scipy.ndimage",
)


def imported(code: str, *arguments: str, of: tuple[str, ...] = HEAVY) -> str:
    """Return the heavy packages that this code has imported by its end."""
    code = f"import sys\ntry:\n    {code}\nfinally:\n    print('heavy', sorted({{*{of!r}}} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.splitlines()[-1]


def test_importing_segpipe_is_light() -> None:
    assert imported("import segpipe") == "heavy []"
    assert imported("import segpipe; segpipe.Predictor") == "heavy ['nibabel', 'torch']"


def test_a_prediction_does_not_wait_for_what_it_may_not_need() -> None:
    """MONAI takes longer to import than a small scan to segment; pictures are drawn when the mask is there."""
    assert imported("import segpipe.batch") == "heavy ['nibabel', 'torch']"


def test_a_scan_waits_for_no_compiler_and_no_charts(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "tiny.ckpt")
    image = nib.Nifti1Image(np.ones((20, 16, 8), np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
    nib.save(image, tmp_path / "scan.nii.gz")
    call = [f"checkpoint={checkpoint}", f"input={tmp_path}/scan.nii.gz", f"output={tmp_path}/masks"]
    packages = ("torch", "torch._dynamo", "monai", "segpipe.reporting.agreement")
    code = "from segpipe.cli import predict; predict()"
    assert imported(code, *call, "device=cpu", of=packages) == "heavy ['torch']"
    assert (tmp_path / "masks" / "scan.nii.gz").exists()


@pytest.mark.parametrize("program", ["train", "predict"])
@pytest.mark.parametrize("argument", ["--help", "sed=1"])
def test_help_and_a_config_error_are_light(program: str, argument: str) -> None:
    assert imported(f"from segpipe.cli import {program}; {program}()", argument) == "heavy []"


def test_help_is_there_at_once_beside_what_it_does_not_import() -> None:
    """A bound that holds on a busy machine: importing torch, MONAI and Lightning takes several times as long."""

    def seconds(*call: str) -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *call], cwd=REPOSITORY, check=True, capture_output=True, timeout=120
        )
        return time.perf_counter() - start

    assert seconds("train.py", "--help") < seconds(
        "-c", "import torch, monai.transforms, pytorch_lightning"
    )


def test_help_can_be_cut_short(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody_reads:
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "train.py"), "--help"],
            stdout=nobody_reads, stderr=subprocess.PIPE, cwd=tmp_path, text=True, timeout=120,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
