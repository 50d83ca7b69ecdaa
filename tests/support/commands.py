"""Commands as a user runs them."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
TINY = ["model.channels=[4,8]", "data.phantom.train=6", "data.phantom.test=2", "plan.batch=1", "plan.patch=[32,32,32]",
        "trainer.max_steps=6", "trainer.steps_per_epoch=3", "trainer.validations=2", "data.workers=0"]  # fmt: skip


ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # tests run beside each other


def command(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments],
        cwd=folder,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=300,
    )
