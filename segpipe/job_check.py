"""What no run of a sweep could do, said before the first one starts."""

import os
from collections.abc import Sequence
from pathlib import Path

from segpipe.config.compose import Job
from segpipe.config.model import Model
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.text import closest

USUAL_PATCH = 32  # voxels along an axis, where none is given
PHANTOM = ("data=", "data.layout=", "data.phantom.")  # words that ask for the phantom


def check_trainings(jobs: Sequence[Job]) -> None:
    """Check all jobs of a command line of `train.py`.

    Raises:
        ConfigError: if the folder of a dataset is missing, or a network cannot be matched.
    """
    matched: set[str] = set()
    for options, overrides in jobs:
        if options.resume is not None:  # what was typed is not what will be run
            continue
        _check_root(options, overrides)
        model = options.model
        if isinstance(model, Model) and model.match != "none":
            key = model.model_dump_json()
            if key not in matched:
                _check_match(model.small(), options)
            matched.add(key)


def _check_root(options: Train, overrides: Sequence[str]) -> None:
    """Check that a folder which is named alone is there: a misspelt one would become a phantom.

    Raises:
        ConfigError: otherwise; the message names similar folders.
    """
    root = options.data.root
    named = any(word.startswith("data.root=") for word in overrides)
    wanted = any(word.startswith(PHANTOM) for word in overrides)
    assert root is not None
    if not named or wanted or options.data.layout != "phantom" or root.exists():
        return
    similar = closest(root.name, _names(root.parent))
    hint = f"; closest: {', '.join(similar)}" if similar else ""
    raise ConfigError(
        f"data.root={root}: no such folder{hint} (data=phantom data.root={root} writes the phantom "
        "there)"
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(filter(str.isprintable, os.listdir(folder)))
    except OSError:
        return []


def _check_match(model: Model, options: Train) -> None:
    """Check that the channels of a network can be matched.

    The plan is not made yet, so what it will give is taken as usual where it is not given.

    Raises:
        ConfigError: if they cannot, not even nearly.
    """
    from segpipe.nets.match import match

    plan = options.plan
    dims = model.dims
    labels = options.data.regions or options.data.labels or {"background": 0, "label": 1}
    strides = plan.strides or [[2] * dims] * (model.levels - 1)
    kernels = plan.kernels or [[3] * dims] * model.levels
    patch = plan.patch or [USUAL_PATCH] * dims
    match(model, 1, len(labels), strides, kernels, patch)
