"""Runs of a sweep beside each other: each process takes a GPU that no other of the sweep has."""

import atexit
import itertools
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from segpipe.errors import ConfigError
from segpipe.lock import showing_life, take

VISIBLE = "CUDA_VISIBLE_DEVICES"
_taken: set[Path] = set()  # sweeps in which this process has a GPU


def take_gpu(sweep: Path, trainer: Mapping[str, Any]) -> None:
    """Let this process see one GPU alone, unless it is to train on several, or on a named one.

    The processes of a sweep count themselves by files in its folder. A process keeps its GPU for
    all its runs; where there are more processes than GPUs, some share one.

    Args:
        sweep: folder of the sweep.
        trainer: options of the run, as composed.
    """
    if sweep in _taken or trainer["device"] not in ("auto", "cuda") or trainer["devices"] != 1:
        return
    import torch  # takes a second

    gpus = torch.cuda.device_count()
    if gpus < 2:
        return
    sweep.mkdir(parents=True, exist_ok=True)
    number = _first_free(sweep)
    _taken.add(sweep)
    names = os.environ.get(VISIBLE)
    visible = names.split(",") if names else list(map(str, range(gpus)))
    os.environ[VISIBLE] = visible[number % gpus]


def _first_free(sweep: Path) -> int:
    """Return the lowest number that no living process of the sweep has, and take it."""
    until_the_end = ExitStack()
    atexit.register(until_the_end.close)
    for number in itertools.count():
        file = sweep / f".segpipe-process-{number}"
        try:
            take(file)
        except ConfigError:  # another process has it
            continue
        until_the_end.enter_context(showing_life(file))
        return number
    raise AssertionError
