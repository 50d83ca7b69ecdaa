"""Trained runs opened again: their networks, and the cases on which they are probed."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe import checkpoint
from segpipe.accelerator import tune_process
from segpipe.checkpoint import Trained
from segpipe.config.compose import defaults
from segpipe.config.data import Data, data_options
from segpipe.config.probe import Probe
from segpipe.config.train import Loss
from segpipe.config.validation import validate
from segpipe.data.cases import Case
from segpipe.data.datasets import open_dataset
from segpipe.data.prepare import PreparedScan, prepare_scan, read_labels
from segpipe.data.split import split_cases
from segpipe.device import choose_device
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.prediction.inference_plan import format_for
from segpipe.prediction.predictor import Predictor
from segpipe.registry import LAYOUTS
from segpipe.stored import read_record
from segpipe.text import count, nearest

log = logging.getLogger("segpipe")
NOT_COMPARED = ("name", "model.channels")  # keys that do not tell what a run is
PLACES = ("data.root", "data.cache")  # keys that do so where nothing else differs


@dataclass(frozen=True)
class TrainedRun:
    """A trained run.

    Attributes:
        name: a name by which it differs from the other runs that were opened with it.
        trained: network, plan and config.
        predictor: the predictor of the network.
    """

    name: str
    trained: Trained
    predictor: Predictor

    @property
    def plan(self) -> Plan:
        """How a scan becomes the network's input."""
        return self.trained.plan

    @property
    def loss(self) -> Loss:
        """The loss that it was trained with: weights and options of the terms."""
        return validate(Loss, self.trained.config["loss"])


def open_runs(options: Probe) -> list[TrainedRun]:
    """Open the runs that the options name, each under a name that says how it differs.

    Raises:
        ConfigError: if one is not a checkpoint.
    """
    assert options.checkpoint is not None
    device = choose_device(options.device)
    tune_process(device)
    opened = list(map(checkpoint.load, options.checkpoint))
    configs = [trained.config for trained in opened]
    runs = []
    for name, trained in zip(
        tell_apart(configs, _folders(options.checkpoint)), opened, strict=True
    ):
        number_format = format_for(trained.plan, options.precision, device)
        predictor = Predictor.of(trained, device, number_format)
        runs.append(TrainedRun(name, trained, predictor))
    return runs


def _folders(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path if they all differ, else the whole paths."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) == len(names):
        return names
    return list(map(str, paths))


def tell_apart(configs: Sequence[dict[str, Any]], otherwise: Sequence[str]) -> list[str]:
    """Return a name for each config that says how it differs from the others.

    Args:
        configs: the configs as stored in checkpoints.
        otherwise: names for configs that do not all differ.
    """
    flat = [dict(_leaves(config)) for config in configs]
    names = [""] * len(flat)
    keys = _differing_keys(flat)
    telling = [key for key in keys if key not in PLACES]
    for key in telling or keys:
        for index, config in enumerate(flat):
            leaf = key.rpartition(".")[2]
            separator = ", " if names[index] else ""
            names[index] += f"{separator}{leaf}={_short(config.get(key))}"
    distinct = len(names) > 1 and len(set(names)) == len(names)
    return names if distinct else list(otherwise)


def _differing_keys(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all configs, in the order of the configs."""
    keys: dict[str, None] = {}
    for config in configs:
        keys |= dict.fromkeys(config)
    differing = []
    for key in keys:
        values = {json.dumps(config.get(key)) for config in configs}
        if len(values) > 1 and key not in NOT_COMPARED:
            differing.append(key)
    return differing


def _leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a nested config with their values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: object) -> str:
    if value is None:
        return "null"
    return str(value).replace("'", "")


def find_cases(options: Probe, first: Trained) -> list[Case]:
    """Return the labelled cases that the options name, or else those that validated the first run.

    Raises:
        SegpipeError: if the dataset does not exist, or a case is not in it.
    """
    assert options.checkpoint is not None
    data = _data_of(first, options.data_root)
    dataset = open_dataset(data)
    labelled: dict[str, Case] = {}
    for case in (*dataset.cases, *dataset.test):
        if case.label is not None:
            labelled[case.name] = case
    names = options.cases or _validated(options.checkpoint[0], dataset.cases, data)
    cases = []
    for name in names:
        if name not in labelled:
            hint = nearest(name, list(labelled))
            raise ConfigError(
                f"cases: the dataset in {data.root} has no labelled case {name}.{hint}"
            )
        cases.append(labelled[name])
    _warn_of_training_cases(options.checkpoint, names)
    return cases


def _data_of(trained: Trained, root: Path | None) -> Data:
    """Return the options of a run's dataset, which may lie elsewhere now.

    Raises:
        ConfigError: if the checkpoint has none, and `root` is no dataset of a known layout.
    """
    stored = trained.config.get("data")
    if stored is not None:
        data = data_options(stored)
        return data if root is None else data.model_copy(update={"root": root})
    usual = defaults("train")["data"]
    usual = {key: value for key, value in usual.items() if key in Data.model_fields}
    for name in LAYOUTS if root is not None else ():
        if LAYOUTS[name]().looks_like(root):
            return data_options(usual | {"layout": name, "root": str(root)})
    raise ConfigError(
        f"data_root={root or 'null'}: the checkpoint does not say which data it was trained on; "
        "give the folder of a dataset, as in data_root=DIR (layouts: data/README.md)"
    )


def _warn_of_training_cases(paths: Sequence[Path], names: Sequence[str]) -> None:
    for path in paths:
        trained_on = set(names) & set(_side(path, "train"))
        if trained_on:
            known = f"{len(trained_on)} of {count(len(names), 'case')}"
            log.warning("%s was trained on %s, as %s", path, known, min(trained_on))


def _side(path: Path, side: str) -> list[str]:
    """Return the cases on one side of the run's `split.json`.

    There are none where the checkpoint was moved out of its run's folder.
    """
    split = checkpoint.find(path).parent.parent / "split.json"
    if not split.is_file():
        return []
    return read_record(split, dict[str, Any]).get(side, [])


def _validated(path: Path, cases: Sequence[Case], data: Data) -> list[str]:
    """Return the cases that validated a run, by its `split.json` or the same split made again."""
    names = _side(path, "val")
    if names:
        return names
    split = split_cases(
        cases, file=data.split, folds=data.folds, fold=data.fold, fraction=data.fraction
    )
    return list(split.val)


def output_folder(options: Probe, name: str) -> Path:
    """Return `options.output`, or a folder of this name in that of the first run."""
    assert options.checkpoint is not None
    if options.output is not None:
        return options.output
    return checkpoint.find(options.checkpoint[0]).parent.parent / name


def same_targets(runs: Sequence[TrainedRun]) -> None:
    """Check that all runs were trained to segment the same labels.

    Raises:
        ConfigError: naming two that differ.
    """
    first = runs[0]
    for run in runs[1:]:
        if (run.plan.labels, run.plan.regions) != (first.plan.labels, first.plan.regions):
            raise ConfigError(
                f"checkpoint: {run.name} segments {', '.join(run.plan.targets)}, but {first.name} "
                f"{', '.join(first.plan.targets)}; only networks with the same labels can be "
                "compared"
            )


def read_case(case: Case, plan: Plan) -> tuple[PreparedScan, np.ndarray]:
    """Return a case as the network sees it, and its truth on the scan's own grid.

    Returns:
        The prepared scan, and label indices `(X, Y, Z)`.

    Raises:
        DataError: if it cannot be used.
    """
    scan = prepare_scan(case.images, plan)
    return scan, read_labels(case, plan, scan.grid).numpy()[0]
