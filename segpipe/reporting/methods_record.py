"""What a methods paragraph is made from: all of it is stored with a run or in a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segpipe
from segpipe.checkpoint import StartedFrom, Trained
from segpipe.plan import Plan
from segpipe.reporting.run_record import RunRecord
from segpipe.stored import read_plan, read_yaml
from segpipe.units import UNITS, Units


@dataclass(frozen=True)
class MethodsRecord:
    """The stored facts of one training; what is not known is None or empty.

    Attributes:
        config: the run's options; of an imported network without `optim` and `data`.
        plan: how cases became what the network saw.
        parameters: the parameters of the network.
        train: cases that trained.
        validate: cases that validated.
        step: optimiser steps of the training, or until the checkpoint.
        is_best: whether `step` is that of a checkpoint, rather than the end of the training.
        validations: times that whole scans were segmented to choose the checkpoint.
        initial: the checkpoint that the training started from.
        postprocess: what was chosen, in words.
        metrics: names of what was measured.
        versions: the versions of packages.
        environment: Python, device and git revision, by name.
    """

    config: Mapping[str, Any]
    plan: Plan
    parameters: int | None
    train: int | None
    validate: int | None
    step: int
    is_best: bool
    validations: int | None
    initial: StartedFrom | None
    postprocess: str
    metrics: tuple[str, ...]
    versions: Mapping[str, str]
    environment: Mapping[str, str]

    @property
    def is_imported(self) -> bool:
        """Return whether another program has trained the network."""
        return "optim" not in self.config


def record_of_run(run: RunRecord) -> MethodsRecord:
    """Return the facts of a run's folder.

    Raises:
        SegpipeError: if one of its files is damaged.
    """
    file = run.folder / "plan.yaml"
    plan = read_plan(file, read_yaml(file))
    steps = run.metrics[-1]["step"] if run.metrics else 0
    measured: dict[str, None] = {}
    for score in run.scores:
        measured |= dict.fromkeys(score.values)
    known = run.environment
    return MethodsRecord(
        config=run.config,
        plan=plan,
        parameters=run.network["parameters"] if run.network else None,
        train=len(run.split["train"]),
        validate=len(run.split["val"]),
        step=round(steps),
        is_best=False,
        validations=sum("dice/mean" in row for row in run.metrics),
        initial=run.initial and run.initial.source,
        postprocess=_chosen(run.postprocess.get("chosen"), UNITS[plan.unit]),
        metrics=tuple(measured),
        versions=known["versions"],
        environment={name: known[name] or "" for name in ("python", "device", "revision")},
    )


def record_of_checkpoint(trained: Trained) -> MethodsRecord:
    """Return the facts that a checkpoint holds: those of its training, without the machine's."""
    data = trained.data
    return MethodsRecord(
        config=trained.config,
        plan=trained.plan,
        parameters=sum(weight.numel() for weight in trained.network.parameters()),
        train=data and data.train,
        validate=data and data.validate,
        step=trained.step,
        is_best=True,
        validations=None,
        initial=trained.initial,
        postprocess=_chosen(trained.postprocess.model_dump(), UNITS[trained.plan.unit]),
        metrics=(),
        versions={"segpipe": trained.version or segpipe.__version__},
        environment={},
    )


def _chosen(stored: Mapping[str, Any] | None, units: Units) -> str:
    """Return post-processing in words; an empty string where masks stay as they are."""
    chosen = stored or {}
    parts: list[str] = []
    for name, threshold in chosen.get("thresholds", {}).items():
        parts.append(f"a voxel was taken for {name} from a probability of {threshold:g}")
    for name in chosen.get("keep_largest", ()):
        parts.append(f"only the largest component of {name} was kept")
    for name, volume_ml in chosen.get("min_volume_ml", {}).items():
        size = f"{units.of_volume(volume_ml):g} {units.volume}"
        parts.append(f"components of {name} below {size} were removed")
    return ", ".join(parts)


def source_name(source: StartedFrom) -> str:
    """Return the name of a checkpoint without the folders of this machine."""
    return Path(source.path).name
