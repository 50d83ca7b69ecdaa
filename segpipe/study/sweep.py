"""The folder of a sweep, read again: its runs, its variants, and which runs cannot be compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from segpipe.cli import FAILURE
from segpipe.config.compose import chosen, defaults, sweep_jobs
from segpipe.config.quoting import parse
from segpipe.errors import ConfigError
from segpipe.metrics import Score
from segpipe.reporting.run_record import RunRecord
from segpipe.resume import is_done
from segpipe.stored import read_config, read_yaml
from segpipe.units import UNITS, Units

REPEATS = ("seed", "data.fold")  # keys that repeat a variant, rather than making another one
Repeat = tuple[str, ...]  # the overrides of `REPEATS`


@dataclass(frozen=True)
class SweepRun(RunRecord):
    """A run that was trained and scored to its end.

    Attributes:
        variant: the overrides in which it differs from other runs of the sweep.
        repeat: the overrides of seed and fold.
    """

    variant: tuple[str, ...]
    repeat: Repeat

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the options as plain values, as the present schema has them."""
        file = self.folder / "config.yaml"
        return read_config(file, read_yaml(file))


@dataclass(frozen=True)
class Source:
    """Scores of masks of one origin.

    Attributes:
        folder: in whose `overlays/` pictures of the cases may lie.
        scores: the scores of each case and target.
        units: in which lengths and volumes are shown.
        train: cases that trained the network; None where that is not known.
        run: whose network can draw a case that has no picture; None where there is none.
    """

    folder: Path
    scores: list[Score]
    units: Units = field(default_factory=lambda: UNITS["mm"])
    train: frozenset[str] | None = None
    run: SweepRun | None = None

    @property
    def cases(self) -> frozenset[str]:
        """Return the names of the cases that were scored."""
        return frozenset(score.case for score in self.scores)


ScoredRun = SweepRun | Source
R = TypeVar("R", bound=ScoredRun)


@dataclass(frozen=True)
class Variant(Generic[R]):
    """Runs that differ in seed and fold alone.

    Attributes:
        name: its overrides, as short as they tell it from the others.
        overrides: in full.
        runs: by seed and fold.
    """

    name: str
    overrides: tuple[str, ...]
    runs: Mapping[Repeat, R]

    @property
    def first_run(self) -> R:
        """Return the run that was started first."""
        return next(iter(self.runs.values()))


@dataclass(frozen=True)
class Sweep(Generic[R]):
    """The runs of a sweep.

    Attributes:
        folder: the folder of the sweep.
        variants: in the order of their first runs.
        problems: name of each run that is not among the variants -> why.
    """

    folder: Path
    variants: Sequence[Variant[R]]
    problems: Mapping[str, str]


def read_sweep(folder: Path) -> Sweep[SweepRun]:
    """Return the runs of a sweep: those that are done as variants, the others as problems.

    Raises:
        ConfigError: if another version wrote the sweep, and its keys are no longer known.
    """
    jobs = sweep_jobs(folder)
    counts = Counter(chain.from_iterable(jobs))
    runs: dict[tuple[str, ...], dict[Repeat, SweepRun]] = {}
    problems: dict[str, str] = {}
    for number, job in enumerate(jobs):
        run_folder = folder / str(number)
        problem = why_unfinished(run_folder)
        if problem:
            problems[str(number)] = f"{problem} ({' '.join(job)})"
            continue
        repeat = tuple(word for word in job if _is_repeat(word))
        variant = tuple(word for word in job if not _is_repeat(word) and counts[word] < len(jobs))
        run = SweepRun(run_folder, variant, repeat)
        runs.setdefault(variant, {})[repeat] = run
    variants: list[Variant[SweepRun]] = []
    for overrides, repeats in runs.items():
        variants.append(Variant(_short_name(overrides), overrides, repeats))
    return Sweep(folder, variants, problems)


def _is_repeat(override: str) -> bool:
    return override.split("=")[0] in REPEATS


def why_unfinished(folder: Path) -> str:
    """Return why a run has nothing to compare; an empty string where it is done."""
    failure = folder / FAILURE
    if failure.is_file():
        return f"failed: {failure.read_text().strip()}"
    if is_done(folder):
        return ""
    if not (folder / "environment.json").is_file():
        return "not begun"
    epochs = RunRecord(folder).rows("metrics.csv")
    if not epochs:
        return "unfinished: stopped before its first epoch ended"
    return f"unfinished: stopped after step {epochs[-1]['step']}"


def _short_name(overrides: Sequence[str]) -> str:
    words = [word.removeprefix("model.").lstrip("+") for word in overrides]
    return ", ".join(words) or "as it is"


def find_reference(sweep: Sweep[SweepRun], requested: str | None) -> Variant[SweepRun]:
    """Return the variant that the others are compared with.

    It is the requested one; else the one whose overrides are the defaults; else the first.

    Raises:
        ConfigError: if no variant has the requested name.
    """
    for variant in sweep.variants:
        if requested in (variant.name, " ".join(variant.overrides)):
            return variant
    if requested is not None:
        names = "; ".join(" ".join(variant.overrides) for variant in sweep.variants)
        raise ConfigError(
            f"reference: no variant of {sweep.folder} is '{requested}'; there are: {names}"
        )
    usual = flat(defaults("train")) | chosen("train")
    for variant in sweep.variants:
        if all(_is_usual(word, usual) for word in variant.overrides):
            return variant
    return sweep.variants[0]


def led_by(sweep: Sweep[R], reference: Variant[R]) -> Sweep[R]:
    """Return a sweep with its reference as the first variant, so that this has the letter A."""
    others = [variant for variant in sweep.variants if variant.name != reference.name]
    return replace(sweep, variants=[reference, *others])


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested config by their dotted keys."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value
    return values


def _is_usual(override: str, usual: Mapping[str, Any]) -> bool:
    key = override.partition("=")[0]
    return key in usual and parse(override).value() == usual[key]


def why_not_comparable(run: SweepRun, other: SweepRun) -> str:
    """Return why two runs of the same seed and fold cannot be compared case by case.

    Returns:
        The reason; an empty string where they can.
    """
    name = other.folder.name
    for part, action in (("train", "trained"), ("val", "validated")):
        cases = run.split[part]
        others = other.split[part]
        if sorted(cases) != sorted(others):
            return f"{action} on {len(cases)} cases that are not the {len(others)} of {name}"
    volumes = _truth_volumes(run)
    other_volumes = _truth_volumes(other)
    if volumes.keys() != other_volumes.keys():
        return f"scored other cases or labels than {name}"
    for (case, label), volume in volumes.items():
        there = other_volumes[case, label]
        if not np.isclose(volume, there, rtol=1e-6, equal_nan=True):
            return (
                f"the truth of {case}, {label}, has {volume:.4g} mL, but {there:.4g} mL in {name}"
            )
    return ""


def _truth_volumes(run: SweepRun) -> dict[tuple[str, str], float]:
    return {(score.case, score.label): score.truth_ml for score in run.scores}
