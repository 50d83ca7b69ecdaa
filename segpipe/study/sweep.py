"""A sweep's folder, read again: its runs, which of them are one variant, and what keeps runs from being compared."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

from segpipe.cli import FAILURE
from segpipe.config.compose import chosen, defaults, sweep_jobs
from segpipe.errors import ConfigError
from segpipe.metrics import Score
from segpipe.resume import is_done
from segpipe.stored import read_config, read_yaml

REPEATS = ("seed", "data.fold")  # what repeats a variant, rather than making another one
Repeat = tuple[str, ...]  # the overrides of `REPEATS`


@dataclass(frozen=True)
class SweepRun:
    """A run that was trained and scored to its end.

    Attributes:
        folder: of the run.
        variant: the overrides that make it what it is among the sweep's.
        repeat: those of seed and fold.
    """

    folder: Path
    variant: tuple[str, ...]
    repeat: Repeat

    @cached_property
    def scores(self) -> list[Score]:
        """Of every validation case and target."""
        return _read_scores(self.folder / "validation.csv")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's options as plain values, as the present schema has them."""
        file = self.folder / "config.yaml"
        return read_config(file, read_yaml(file))

    @cached_property
    def network(self) -> dict[str, Any]:
        """`network.json`: what the network is made of."""
        return json.loads((self.folder / "network.json").read_text())

    @cached_property
    def split(self) -> dict[str, list[str]]:
        """Cases that trained and validated."""
        return json.loads((self.folder / "split.json").read_text())

    @property
    def seconds_per_step(self) -> float:
        """Median wall time of a training step; NaN where it was not measured."""
        cost = self.folder / "cost.json"
        return json.loads(cost.read_text())["seconds_per_step"] if cost.is_file() else float("nan")


@dataclass(frozen=True)
class Variant:
    """Runs that differ in seed and fold alone.

    Attributes:
        name: its overrides, as short as they tell it from the others.
        overrides: in full.
        runs: by seed and fold.
    """

    name: str
    overrides: tuple[str, ...]
    runs: Mapping[Repeat, SweepRun]


@dataclass(frozen=True)
class Sweep:
    """What a sweep's folder holds.

    Attributes:
        folder: of the sweep.
        variants: in the order of their first runs.
        problems: of each run that is not among them, and of each that cannot be compared, what is the matter.
    """

    folder: Path
    variants: Sequence[Variant]
    problems: Mapping[str, str]


def read_sweep(folder: Path) -> Sweep:
    """The runs of a sweep, those that are done as variants; the others as problems.

    Raises:
        ConfigError: if it is the sweep of another version, whose keys are no longer known.
    """
    jobs = sweep_jobs(folder)
    counts = Counter(word for job in jobs for word in job)
    runs, problems = [], {}
    for number, job in enumerate(jobs):
        own = folder / str(number)
        if problem := _unfinished(own):
            problems[str(number)] = f"{problem} ({' '.join(job)})"
            continue
        variant = [
            word for word in job if word.split("=")[0] not in REPEATS and counts[word] < len(jobs)
        ]
        repeat = [word for word in job if word.split("=")[0] in REPEATS]
        runs.append(SweepRun(own, tuple(variant), tuple(repeat)))
    variants = [
        Variant(
            _short(overrides),
            overrides,
            {run.repeat: run for run in runs if run.variant == overrides},
        )
        for overrides in dict.fromkeys(run.variant for run in runs)
    ]
    return Sweep(folder, variants, problems)


def _unfinished(folder: Path) -> str:
    """Why a run's folder has nothing to compare; nothing where it has."""
    if (failure := folder / FAILURE).is_file():
        return f"failed: {failure.read_text().strip()}"
    if is_done(folder):
        return ""
    if not (folder / "environment.json").is_file():
        return "not begun"
    metrics = folder / "metrics.csv"
    rows = list(csv.DictReader(metrics.open())) if metrics.is_file() else []
    return "unfinished: stopped " + (
        f"after step {rows[-1]['step']}" if rows else "before its first epoch ended"
    )


def _short(overrides: Sequence[str]) -> str:
    return ", ".join(word.removeprefix("model.").lstrip("+") for word in overrides) or "as it is"


def _read_scores(file: Path) -> list[Score]:
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    numbers = [field.name for field in fields(Score) if field.name not in ("case", "label")]
    return [
        Score(row["case"], row["label"], *(float(row[name]) for name in numbers)) for row in rows
    ]


def find_reference(sweep: Sweep, asked: str | None) -> Variant:
    """The variant that the others are compared with: the one asked for, the config's own, else the first.

    Raises:
        ConfigError: if none is called so.
    """
    for variant in sweep.variants:
        if asked in (variant.name, " ".join(variant.overrides)):
            return variant
    if asked is not None:
        known = "; ".join(" ".join(variant.overrides) for variant in sweep.variants)
        raise ConfigError(
            f"reference: no variant of {sweep.folder} is '{asked}'; there are: {known}"
        )
    usual = _values(defaults("train")) | chosen("train")
    own = [one for one in sweep.variants if all(_as_usual(word, usual) for word in one.overrides)]
    return (own or list(sweep.variants))[0]


def _values(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in config.items():
        found |= (
            _values(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


def _as_usual(override: str, usual: Mapping[str, Any]) -> bool:
    key, _, value = override.partition("=")
    return key in usual and yaml.safe_load(value) == usual[key]


def values(
    scores: Sequence[Score], metric: str, cases: Sequence[str], labels: Sequence[str]
) -> Float[np.ndarray, "cases labels"]:
    """One metric as a table; NaN where neither mask has the target."""
    known = {(score.case, score.label): getattr(score, metric) for score in scores}
    return np.array(
        [[known.get((case, label), np.nan) for label in labels] for case in cases], dtype=float
    )


def differ(one: SweepRun, other: SweepRun) -> str:
    """Why two runs of the same seed and fold cannot be compared case by case; nothing where they can."""
    than = other.folder.name
    for side, what in (("train", "trained"), ("val", "validated")):
        if sorted(one.split[side]) != sorted(other.split[side]):
            return f"{what} on {len(one.split[side])} cases that are not the {len(other.split[side])} of {than}"
    truths = [
        {(score.case, score.label): score.truth_ml for score in run.scores} for run in (one, other)
    ]
    if truths[0].keys() != truths[1].keys():
        return f"scored other cases or labels than {than}"
    for (case, label), here in truths[0].items():
        there = truths[1][case, label]
        if not np.isclose(here, there, rtol=1e-6, equal_nan=True):
            return f"the truth of {case}, {label}, has {here:.4g} mL, but {there:.4g} mL in {than}"
    return ""
