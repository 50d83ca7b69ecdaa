"""Runs that have been trained, opened again: the network, and the cases that it validates on."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe import checkpoint
from segpipe.checkpoint import Trained
from segpipe.config.data import Data, data_options
from segpipe.config.probe import Probe
from segpipe.config.train import Loss
from segpipe.config.validation import validate
from segpipe.data.cases import Case
from segpipe.data.datasets import open_dataset
from segpipe.data.prepare import PreparedScan, prepare_scan, read_labels
from segpipe.data.split import split_cases
from segpipe.device import choose_device, choose_format, hold_memory
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.prediction.predictor import Predictor
from segpipe.text import nearest

log = logging.getLogger("segpipe")


@dataclass(frozen=True)
class TrainedRun:
    """A run that has been trained.

    Attributes:
        name: what tells it from the others that were opened with it.
        trained: network, plan and config.
        predictor: of its network.
    """

    name: str
    trained: Trained
    predictor: Predictor

    @property
    def plan(self) -> Plan:
        """How a scan becomes what it sees."""
        return self.trained.plan

    @property
    def loss(self) -> Loss:
        """The options of its loss."""
        return validate(Loss, self.trained.config["loss"])


def open_runs(options: Probe) -> list[TrainedRun]:
    """The runs that the options name, on their device, each under a name that says how it differs.

    Raises:
        ConfigError: if one is not a checkpoint.
    """
    assert options.checkpoint is not None
    device = choose_device(options.device)
    hold_memory(device)
    number_format = choose_format(options.precision, device)
    opened = [checkpoint.load(path) for path in options.checkpoint]
    names = tell_apart([one.config for one in opened], _folders(options.checkpoint))
    return [
        TrainedRun(name, one, Predictor(one.network.to(device), one.plan, device, number_format))
        for name, one in zip(names, opened, strict=True)
    ]


def _folders(paths: Sequence[Path]) -> list[str]:
    """The last part of each path where that tells them apart, else all of it."""
    last = [path.resolve().name for path in paths]
    return last if len(set(last)) == len(last) else [str(path) for path in paths]


def tell_apart(configs: Sequence[dict[str, Any]], otherwise: Sequence[str]) -> list[str]:
    """A name for each config that says how it differs from the others; `otherwise` where they are all alike."""
    flat = [dict(_leaves(config)) for config in configs]
    keys = [
        key
        for key in dict.fromkeys(key for one in flat for key in one)
        if key not in ("name", "model.channels")
    ]
    differ = [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]
    names = [
        ", ".join(f"{key.rpartition('.')[2]}={_short(one.get(key))}" for key in differ)
        for one in flat
    ]
    return names if len(set(names)) == len(names) > 1 else list(otherwise)


def _leaves(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    parts = [
        _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
        for key, value in config.items()
    ]
    return [leaf for part in parts for leaf in part]


def _short(value: object) -> str:
    return ("null" if value is None else str(value)).replace("'", "")


def find_cases(options: Probe, first: Trained) -> list[Case]:
    """The labelled cases that the options name; else those that validated the first run.

    Raises:
        SegpipeError: if the dataset is not there, or a case is not in it.
    """
    assert options.checkpoint is not None
    data = data_options(first.config["data"])
    if options.data_root is not None:
        data = data.model_copy(update={"root": options.data_root})
    dataset = open_dataset(data)
    known = {case.name: case for case in (*dataset.cases, *dataset.test) if case.label is not None}
    names = options.cases or _validated(options.checkpoint[0], dataset.cases, data)
    for name in names:
        if name not in known:
            hint = nearest(name, list(known))
            raise ConfigError(
                f"cases: the dataset in {data.root} has no labelled case {name}.{hint}"
            )
    for path in options.checkpoint:
        if learnt := set(names) & set(_side(path, "train")):
            log.warning(
                "%s was trained on %d of these %d cases, as %s",
                path,
                len(learnt),
                len(names),
                min(learnt),
            )
    return [known[name] for name in names]


def _side(path: Path, side: str) -> list[str]:
    """The cases on this side of the run's `split.json`; none where a checkpoint has left its folder."""
    split = checkpoint.find(path).parent.parent / "split.json"
    return list(json.loads(split.read_text())[side]) if split.is_file() else []


def _validated(path: Path, cases: Sequence[Case], data: Data) -> list[str]:
    """Those of the run's `split.json`; where a checkpoint has left its folder, the same split is drawn again."""
    if names := _side(path, "val"):
        return names
    split = split_cases(
        cases, file=data.split, folds=data.folds, fold=data.fold, fraction=data.fraction
    )
    return list(split.val)


def output_folder(options: Probe, name: str) -> Path:
    """Where to write: what the options say, else a folder of this name in that of the first run."""
    assert options.checkpoint is not None
    return options.output or checkpoint.find(options.checkpoint[0]).parent.parent / name


def same_targets(runs: Sequence[TrainedRun]) -> None:
    """Refuses runs that were trained to find different labels.

    Raises:
        ConfigError: naming both.
    """
    for run in runs[1:]:
        if (run.plan.labels, run.plan.regions) != (runs[0].plan.labels, runs[0].plan.regions):
            raise ConfigError(
                f"checkpoint: {run.name} finds {', '.join(run.plan.targets)}, but {runs[0].name} "
                f"{', '.join(runs[0].plan.targets)}; only networks that find the same can be compared"
            )


def read_case(case: Case, plan: Plan) -> tuple[PreparedScan, np.ndarray]:
    """A case as the network sees it, and its truth on the scan's own grid, ids inside.

    Raises:
        DataError: if it cannot be used.
    """
    scan = prepare_scan(case.images, plan)
    return scan, read_labels(case, plan, scan.grid).numpy()[0]
