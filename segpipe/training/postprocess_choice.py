"""Choose post-processing on validation cases, label by label, only where it clearly helps.

A choice is taken where it raises the mean Dice of its label by `LEAST_GAIN` or more; the largest
component alone also where it leaves the Dice and lowers the mean HD95 by `LEAST_HD95_SHARE`. In
either case the label must be in `FEWEST_CASES` cases, and so many more of them must be better than
worse that a sign test doubts chance at 5 %; of thresholds, of which many are tried, at 5 % for all
together (Bonferroni). A case in which neither mask has the label has Dice 1 here, so a false alarm
that is removed counts as gained.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from segpipe import archive
from segpipe.checkpoint import KEY, amend
from segpipe.metric_record import mean_of_known
from segpipe.metrics import mean_dice
from segpipe.plan import Plan
from segpipe.postprocess import USUAL, PostProcess
from segpipe.text import count
from segpipe.training.calibration import Calibration
from segpipe.training.evidence import BINS, Components, Evidence
from segpipe.units import Units

LEAST_GAIN = 0.002  # of the mean Dice
LEAST_HD95_SHARE = 0.05
FEWEST_CASES = 5
SAME_DICE = 1e-4  # a smaller change leaves the Dice as it is
DOUBT = 0.05  # a one-sided sign test must be below it
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.55, 0.6, 0.65, 0.7)
VOLUME_SHARES = (0.001, 0.003, 0.01, 0.03, 0.1)  # of the median true volume of a label
Kept = Callable[[Components], Bool[np.ndarray, " parts"]]


@dataclass(frozen=True)
class Trial:
    """One thing that was tried for one label.

    Attributes:
        label: name of the label or region.
        what: `threshold`, `keep_largest` or `min_volume_ml`.
        value: the value of a threshold, or of a volume, mL; 1 for keep_largest.
        gain: mean change of Dice over the cases that have the label.
        hd95_gain: the share by which the mean HD95 over these cases falls; None where it was not
            measured.
        better: number of cases with a higher Dice, or without a change of it and a lower HD95.
        worse: number of cases with a lower Dice, or without a change of it and a higher HD95.
        taken: whether it was chosen.
    """

    label: str
    what: str
    value: float
    gain: float
    hd95_gain: float | None
    better: int
    worse: int
    taken: bool = False


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what was tried.

    Attributes:
        chosen: the post-processing.
        trials: all that was tried, in its order.
        cases: number of validation cases.
        dice_before: mean Dice over the targets without post-processing.
        dice_after: mean Dice over the targets with what was chosen.
        seconds: the seconds that the choice took.
        note: the reason why nothing, or not everything, was tried; empty otherwise.
        calibration: the calibration of the probabilities; None where it was not measured.
    """

    chosen: PostProcess
    trials: list[Trial]
    cases: int
    dice_before: float | None
    dice_after: float | None
    seconds: float = 0.0
    note: str = ""
    calibration: Calibration | None = None

    def to_values(self) -> dict[str, Any]:
        """Return plain values, as `postprocess.json` holds them."""
        return {
            **asdict(self),
            "chosen": self.chosen.model_dump(),
            "trials": [asdict(trial) for trial in self.trials],
        }

    def line(self, units: Units) -> str:
        """Return one line for log and page, with volumes in these units."""
        if self.note and not self.trials:
            return f"none: {self.note}"
        text = f"{self.chosen.line(units)}; {len(self.trials)} tried on {count(self.cases, 'case')}"
        removes = self.chosen.model_copy(update={"temperature": 1.0}) != PostProcess()
        if removes and self.dice_before is not None:
            text += f", mean Dice {self.dice_before:.4f} -> {self.dice_after:.4f} on these"
        return f"{text}, {self.seconds:.1f} s"


def choose_thresholds(cases: Sequence[Evidence]) -> tuple[dict[str, float], list[Trial]]:
    """Return the threshold of each label or region that has one, and what was tried."""
    thresholds: dict[str, float] = {}
    trials: list[Trial] = []
    for name in cases[0].histograms if cases else ():
        usual = np.array([_dice_above(case, name, USUAL) for case in cases])
        tried = []
        for threshold in THRESHOLDS:
            dice = np.array([_dice_above(case, name, threshold) for case in cases])
            tried.append(_trial(name, "threshold", threshold, usual, dice))
        best = _best(tried)
        if best is not None:
            thresholds[name] = best.value
        trials += _marked(tried, best)
    return thresholds, trials


def choose_removals(cases: Sequence[Evidence], plan: Plan) -> tuple[PostProcess, list[Trial]]:
    """Return which components are removed, label by label, and what was tried."""
    largest: list[str] = []
    volumes: dict[str, float] = {}
    trials: list[Trial] = []
    for label, name in enumerate(plan.label_names, start=1):
        tried = [_try(cases, plan, label, "keep_largest", 1.0)]
        for volume_ml in _volumes_ml(cases, label):
            tried.append(_try(cases, plan, label, "min_volume_ml", volume_ml))
        tried = [trial for trial in tried if trial.better or trial.worse]
        best = _best(tried) or _best_by_distance(tried)
        if best is not None and best.what == "keep_largest":
            largest.append(name)
        elif best is not None:
            volumes[name] = best.value
        trials += _marked(tried, best)
    return PostProcess(keep_largest=largest, min_volume_ml=volumes), trials


def mean_dice_with(cases: Sequence[Evidence], plan: Plan, removals: PostProcess) -> float:
    """Return the mean Dice over the targets after components are removed."""
    names = list(plan.labels)
    rows = []
    for case in cases:
        table = case.table.copy()
        for name in removals.keep_largest:
            table = _without(table, case, names.index(name), is_largest)
        for name, volume_ml in removals.min_volume_ml.items():
            table = _without(table, case, names.index(name), _at_least(volume_ml))
        rows.append(_dice(table, plan))
    return float(np.nanmean(mean_dice(np.array(rows))))


def store(file: Path, chosen: PostProcess) -> None:
    """Store post-processing in a checkpoint, which is replaced at once or not at all.

    Raises:
        ConfigError: if the file is not a checkpoint.
    """
    before = PostProcess.model_validate(archive.read(file)[KEY].get("postprocess") or {})
    if chosen != before:
        amend(file, postprocess=chosen.model_dump())


def is_largest(parts: Components) -> Bool[np.ndarray, " parts"]:
    """Return which component is the largest."""
    return np.arange(len(parts.volumes_ml)) == parts.volumes_ml.argmax()


def _at_least(volume_ml: float) -> Kept:
    return lambda parts: parts.volumes_ml >= volume_ml


def _try(cases: Sequence[Evidence], plan: Plan, label: int, what: str, value: float) -> Trial:
    """Return what a removal does to the targets that hold a label."""
    kept = is_largest if what == "keep_largest" else _at_least(value)
    holding = [label in ids for ids in plan.targets.values()]
    before = []
    after = []
    usual_mm = []
    largest_mm = []
    name = list(plan.labels)[label]
    for case in cases:
        dice = _dice(case.table, plan)[holding]
        before.append(mean_of_known(dice))
        cleaned = _dice(_without(case.table, case, label, kept), plan)[holding]
        after.append(mean_of_known(cleaned))
        usual_mm.append(case.hd95_mm.get(name, np.nan))
        largest_mm.append(case.hd95_largest_mm.get(label, usual_mm[-1]))
    measured = what == "keep_largest" and plan.regions is None
    distances = np.array([usual_mm, largest_mm]) if measured else None
    return _trial(name, what, value, np.array(before), np.array(after), distances)


def _trial(
    label: str,
    what: str,
    value: float,
    before: Float[np.ndarray, " cases"],
    after: Float[np.ndarray, " cases"],
    distances_mm: Float[np.ndarray, "2 cases"] | None = None,
) -> Trial:
    """Return the mean change over the cases that have the label, and in how many it is which."""
    counted = ~np.isnan(before)
    change = np.nan_to_num(after[counted], nan=1.0) - before[counted]
    if not change.size:
        return Trial(label, what, value, 0.0, None, 0, 0)
    gain = float(change.mean())
    if distances_mm is None:
        return Trial(label, what, value, gain, None, _count(change), _count(-change))
    usual, largest = np.nan_to_num(distances_mm[:, counted])
    sign = np.where(np.abs(change) > SAME_DICE, change, usual - largest)
    share = float((usual - largest).sum() / max(usual.sum(), 1e-9))
    return Trial(label, what, value, gain, share, _count(sign), _count(-sign))


def _count(values: Float[np.ndarray, " cases"]) -> int:
    return int((values > 1e-9).sum())


def _is_sure(trial: Trial) -> bool:
    """Return whether a sign test doubts that as many cases are better by chance."""
    from scipy.stats import binomtest

    changed = trial.better + trial.worse
    if changed < FEWEST_CASES:
        return False
    tried = len(THRESHOLDS) if trial.what == "threshold" else 1
    return bool(tried * binomtest(trial.better, changed, alternative="greater").pvalue < DOUBT)


def _best(tried: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest gain of Dice that is large and sure enough."""
    good = [trial for trial in tried if trial.gain >= LEAST_GAIN and _is_sure(trial)]
    return max(good, key=lambda trial: trial.gain, default=None)


def _best_by_distance(tried: Sequence[Trial]) -> Trial | None:
    """Return a trial that leaves the Dice and lowers the HD95 enough."""
    for trial in tried:
        falls = trial.hd95_gain is not None and trial.hd95_gain >= LEAST_HD95_SHARE
        if trial.gain >= 0 and falls and _is_sure(trial):
            return trial
    return None


def _marked(tried: Sequence[Trial], best: Trial | None) -> Iterator[Trial]:
    for trial in tried:
        yield Trial(**{**asdict(trial), "taken": trial is best})


def _volumes_ml(cases: Sequence[Evidence], label: int) -> list[float]:
    """Return the smallest volumes to try: shares of the label's median volume in the truth."""
    volumes = []
    for case in cases:
        voxels = case.table[label].sum()
        if voxels:
            volumes.append(voxels * case.voxel_ml)
    if not volumes:
        return []
    return [float(f"{share * np.median(volumes):.3g}") for share in VOLUME_SHARES]


def _without(
    table: Float[np.ndarray, "labels labels"], case: Evidence, label: int, kept: Kept
) -> Float[np.ndarray, "labels labels"]:
    """Return a table after the components of a label that are not kept became background."""
    parts = case.components.get(label)
    if parts is None:
        return table
    removed = parts.truth[~kept(parts)].sum(0)
    changed = table.copy()
    changed[:, label] -= removed
    changed[:, 0] += removed
    return changed


def _dice(table: Float[np.ndarray, "labels labels"], plan: Plan) -> np.ndarray:
    """Return the Dice of each target; NaN where neither mask has it."""
    values = np.full(len(plan.targets), np.nan)
    for index, ids in enumerate(plan.targets.values()):
        voxels = table[ids].sum() + table[:, ids].sum()
        if voxels:
            values[index] = 2 * table[np.ix_(ids, ids)].sum() / voxels
    return values


def _dice_above(case: Evidence, name: str, threshold: float) -> float:
    """Return the Dice of a label where it is taken from a probability on."""
    outside, inside = case.histograms[name][:, round(threshold * BINS) :].sum(1)
    voxels = inside + outside + case.true_voxels[name]
    return float(2 * inside / voxels) if voxels else float("nan")
