"""What is needed to repeat a run."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("segpipe", "torch", "monai", "pytorch-lightning", "hydra-core", "nibabel", "numpy")


def environment(overrides: Sequence[str]) -> str:
    """Command, overrides, versions, git revision and machine, as JSON."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    known = {
        "command": shlex.join(sys.argv),
        "overrides": list(overrides),
        "revision": revision.stdout.strip() or None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads",
    }
    return json.dumps(known, indent=2) + "\n"
