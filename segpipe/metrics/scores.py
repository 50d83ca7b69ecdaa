"""Scores of cases, and their means."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from segpipe.config.scoring import USUAL, Scoring
from segpipe.files import write_table
from segpipe.mask_pairs import Targets, confusion_table, mask_pairs
from segpipe.metric_record import MetricValues, mean_of_known
from segpipe.metrics.chosen import chosen_metrics, metrics_of, tolerances_mm
from segpipe.registry import METRICS

NAN = float("nan")


@dataclass(frozen=True)
class Score(MetricValues):
    """How well one target of one case was segmented.

    Attributes:
        case: name of the case.
        label: name of the target.
        values: the values of each metric, by its name.
        volume_ml: volume of the prediction, mL.
        truth_ml: volume of the truth, mL.
    """

    case: str
    label: str
    values: Mapping[str, float]
    volume_ml: float
    truth_ml: float

    @classmethod
    def from_values(cls, stored: Mapping[str, Any]) -> "Score":
        """Return the score of a line of CSV or of a JSON object, as `to_values` makes it.

        A metric for which the line has an empty cell or null is NaN. Columns of metrics that are
        not registered are ignored.
        """
        values = {name: _number(stored[name]) for name in METRICS if name in stored}
        volume_ml = _number(stored.get("volume_ml"))
        truth_ml = _number(stored.get("truth_ml"))
        return cls(stored["case"], stored["label"], values, volume_ml, truth_ml)

    def to_values(self) -> dict[str, str | float]:
        """Return all values by the name of their column, in the order of `score_columns`."""
        return {name: getattr(self, name) for name in score_columns([self])}

    @property
    def is_miss(self) -> bool:
        """Return whether only the truth has the target."""
        return self.volume_ml == 0 < self.truth_ml

    @property
    def is_false_alarm(self) -> bool:
        """Return whether only the prediction has the target."""
        return self.truth_ml == 0 < self.volume_ml


@dataclass(frozen=True)
class Summary(MetricValues):
    """The means of one target over the cases in which either mask has it.

    Attributes:
        label: name of the target; `mean` for the mean over the targets.
        values: mean of each metric of the summary, by its name.
        misses: cases in which only the truth has the target; for `mean` the sum over targets.
        false_alarms: cases in which only the prediction has it; likewise.
    """

    label: str
    values: Mapping[str, float]
    misses: int
    false_alarms: int

    def to_values(self) -> dict[str, str | float]:
        """Return all values by name."""
        counts = {"misses": self.misses, "false_alarms": self.false_alarms}
        return {"label": self.label, **self.values, **counts}


def score_columns(scores: Sequence[Score]) -> list[str]:
    """Return the columns of a table: case, label, what any of the scores has, and the volumes."""
    return ["case", "label", *metrics_of("scores", scores), "volume_ml", "truth_ml"]


def _number(stored: str | float | None) -> float:
    return NAN if stored is None or stored == "" else float(stored)


def score_case(
    case: str,
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"],
    spacing_mm: Sequence[float] | np.ndarray,
    targets: Targets,
    scoring: Scoring = USUAL,
) -> list[Score]:
    """Return the scores of a case, one per target.

    Args:
        case: name of the case.
        prediction: ids, 0 and those of the targets.
        truth: ids, the same as in `prediction`; a 2D image has one slice, and its distances are
            those within the slice.
        spacing_mm: voxel size along the three axes, mm.
        targets: name of each target -> the ids that it unites.
        scoring: the metrics that are measured, and how.

    Raises:
        ValueError: if the shapes differ or an id is neither 0 nor of a target.
    """
    metrics = chosen_metrics(scoring)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    tolerances = tolerances_mm(scoring, targets)
    pairs = mask_pairs(prediction, truth, spacing_mm, targets, tolerances, scoring.object_iou)
    scores: list[Score] = []
    for label, pair in zip(targets, pairs, strict=True):
        values = {name: measure(pair) for name, measure in metrics.items()}
        volume_ml = pair.predicted_voxels * voxel_ml
        scores.append(Score(case, label, values, volume_ml, pair.true_voxels * voxel_ml))
    return scores


def dice_per_target(
    prediction: Integer[np.ndarray, "*space"],
    truth: Integer[np.ndarray, "*space"],
    targets: Targets,
) -> Float[np.ndarray, " targets"]:
    """Return the Dice of each target, of all in one pass; NaN where neither mask has it.

    Raises:
        ValueError: if the shapes differ or an id is neither 0 nor of a target.
    """
    table = confusion_table(prediction, truth, targets)
    dice = np.full(len(targets), NAN)
    for index, ids in enumerate(targets.values()):
        voxels = table[list(ids)].sum() + table[:, list(ids)].sum()
        if voxels:
            dice[index] = 2 * table[np.ix_(ids, ids)].sum() / voxels
    return dice


def mean_dice(cases: Float[np.ndarray, "cases targets"]) -> Float[np.ndarray, " targets"]:
    """Return for each target the mean over the cases that have it; NaN where none does.

    The mean Dice of a data set, here and everywhere, is the mean of these over the targets: each
    target has the same weight, even if fewer cases have it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a target that no case has
        return np.nanmean(cases, axis=0)


def mean_dice_of(scores: Sequence[Score]) -> float:
    """Return the mean Dice over the targets that either mask has; NaN where there is none."""
    return _mean_of(scores, "dice")


def _mean_of(rows: Sequence[MetricValues], name: str) -> float:
    return mean_of_known(getattr(row, name) for row in rows)


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """Return a line per target, and the mean of those lines.

    A target that no case has is NaN, and is left out of the mean.
    """
    lines: list[Summary] = []
    for label in dict.fromkeys(score.label for score in scores):
        of_label = [score for score in scores if score.label == label]
        misses = sum(score.is_miss for score in of_label)
        alarms = sum(score.is_false_alarm for score in of_label)
        lines.append(Summary(label, _means(of_label), misses, alarms))
    misses = sum(line.misses for line in lines)
    alarms = sum(line.false_alarms for line in lines)
    return [*lines, Summary("mean", _means(lines), misses, alarms)]


def _means(rows: Sequence[MetricValues]) -> dict[str, float]:
    return {name: _mean_of(rows, name) for name in metrics_of("summary", rows)}


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Write a CSV file with a line per case and target."""
    columns = score_columns(scores)
    values_of = attrgetter(*columns)
    write_table(path, columns, [values_of(score) for score in scores])
