"""What is needed to repeat a run: its config, plan and environment."""

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from segpipe.accelerator import gpu_facts
from segpipe.config.train import Train
from segpipe.files import write_text
from segpipe.plan import Plan
from segpipe.stored import SCHEMA

log = logging.getLogger("segpipe")
PACKAGES = ("segpipe", "torch", "monai", "pytorch-lightning", "hydra-core", "nibabel", "numpy")


def write_record(
    folder: Path, options: Train, plan: Plan, overrides: Sequence[str], device: torch.device
) -> None:
    """Write `config.yaml`, `plan.yaml` and `environment.json`; let `runs/latest` point here.

    Args:
        folder: the run's folder.
        options: its options.
        plan: its plan.
        overrides: arguments of the command line.
        device: the device that trains.

    Raises:
        DataError: if a file cannot be written.
    """
    _write_yaml(folder / "config.yaml", options.model_dump(mode="json"))
    write_plan(folder, plan)
    write_text(folder / "environment.json", environment(overrides, device))
    _link_latest(folder.absolute())


def write_plan(folder: Path, plan: Plan) -> None:
    """Write `plan.yaml`.

    Raises:
        DataError: if it cannot be written.
    """
    _write_yaml(folder / "plan.yaml", plan.model_dump(mode="json"))


def environment(overrides: Sequence[str], device: torch.device) -> str:
    """Return command, overrides, versions, git revision, machine and GPU as JSON."""
    facts = {
        "command": shlex.join(sys.argv),
        "overrides": list(overrides),
        "revision": _revision(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": _device_name(device),
        **gpu_facts(device),
    }
    return json.dumps(facts, indent=2) + "\n"


def _write_yaml(path: Path, values: dict[str, object]) -> None:
    write_text(path, yaml.safe_dump({"schema": SCHEMA, **values}, sort_keys=False))


def _revision() -> str | None:
    """Return the git revision of the source; None outside a repository."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def _link_latest(folder: Path) -> None:
    """Let `latest` in the folder of all runs be a link to this run."""
    runs = next((parent for parent in folder.parents if parent.name == "runs"), folder.parent)
    latest = runs / "latest"
    if latest.is_dir() and not latest.is_symlink():
        log.warning("%s is a folder, as in a copy of runs/, not a link: it is kept", latest)
        return
    link = runs / f".latest-{os.getpid()}"
    link.symlink_to(os.path.relpath(folder, runs))
    os.replace(link, latest)
