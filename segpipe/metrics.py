"""Metrics of a predicted mask against the truth, and the scores of cases that hold their values.

A metric is a function of a `MaskPair` with a record of what tables need to know of it. It is
registered under its name, which is also its column in `validation.csv`, `scores.csv`, `study.csv`
and `report.json`. One of your own, in a file that `extensions=[FILE]` names:

    from segpipe.metrics import MaskPair, metric
    from segpipe.registry import METRICS

    @METRICS.register("recall", help="share of the truth that the prediction covers")
    @metric(title="Recall", digits=4)
    def recall(pair: MaskPair) -> float:
        return pair.common_voxels / pair.true_voxels

Both masks that a metric is given hold the target. The other cases follow one policy: if neither
mask holds the target, every metric is NaN and the case is not counted. If only one holds it, the
case is a miss or a false alarm, and a metric has its worst value, `Metric.miss`: 0 for an overlap,
the diagonal of the field of view for a distance, so that a network which finds nothing never looks
better than one that finds something. (MONAI's HD95 of a miss is NaN, which its means leave out.)
Means are taken over the cases in which either mask holds the target, and then over the targets.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from segpipe.errors import ConfigError
from segpipe.files import write_table
from segpipe.mask_pairs import IGNORED as IGNORED
from segpipe.mask_pairs import MaskPair, Targets, confusion_table, mask_pairs
from segpipe.metric_record import Metric, MetricValues, TableName, metric
from segpipe.registry import METRICS

NAN = float("nan")


def metrics_of(table: TableName) -> dict[str, Metric]:
    """Return the metrics that a table shows, by name, in the order of their registration.

    Raises:
        ConfigError: if an extension has registered something that `metric` has not made.
    """
    shown: dict[str, Metric] = {}
    for name in METRICS:
        entry = METRICS[name]
        if not isinstance(entry, Metric):
            raise ConfigError(
                f"metric {name}: give it a title: @metric(title=...) below @METRICS.register(...)"
            )
        if entry.stands_in(table):
            shown[name] = entry
    return shown


@METRICS.register("dice", help="Dice coefficient (Dice 1945)")
@metric(title="Dice", tested=True)
def dice(pair: MaskPair) -> float:
    """Return 2 |A n B| / (|A| + |B|)."""
    return 2 * pair.common_voxels / (pair.predicted_voxels + pair.true_voxels)


@METRICS.register("iou", help="intersection over union (Jaccard 1912)")
@metric(title="IoU", summary=False)  # not tested: it ranks cases as Dice does
def iou(pair: MaskPair) -> float:
    """Return |A n B| / |A u B|."""
    return pair.common_voxels / (pair.predicted_voxels + pair.true_voxels - pair.common_voxels)


@METRICS.register("hd95_mm", help="95th percentile Hausdorff distance (Huttenlocher 1993)")
@metric(title="HD95", unit="mm", digits=2, better="lower", miss="diagonal")
def hd95_mm(pair: MaskPair) -> float:
    """Return the larger of the two directed 95th percentiles of surface distances, mm.

    A study does not test it: a miss has a value by convention, which is too coarse for ranks.
    """
    # MONAI takes longer to import than a small scan to segment, and only scoring needs it
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    spacing = pair.spacing_mm.tolist()
    with _without_monai_warning():
        distance = compute_hausdorff_distance(*pair.one_hot, percentile=95, spacing=spacing)
    return float(distance)


@METRICS.register("assd_mm", help="average symmetric surface distance")
@metric(
    title="ASSD", unit="mm", digits=2, better="lower", miss="diagonal", summary=False, study=False
)
def assd_mm(pair: MaskPair) -> float:
    """Return the mean distance between the surfaces, in both directions, mm."""
    from monai.metrics.surface_distance import compute_average_surface_distance

    spacing = pair.spacing_mm.tolist()
    with _without_monai_warning():
        distance = compute_average_surface_distance(*pair.one_hot, symmetric=True, spacing=spacing)
    return float(distance)


@METRICS.register("nsd", help="normalised surface Dice at a tolerance of 1 mm (Nikolov 2018)")
@metric(title="NSD 1 mm", tested=True)
def nsd(pair: MaskPair) -> float:
    """Return the share of both surfaces that lies within the tolerance of the other surface."""
    from monai.metrics.surface_dice import compute_surface_dice

    tolerance = [pair.tolerance_mm]
    spacing = pair.spacing_mm.tolist()
    with _without_monai_warning():
        share = compute_surface_dice(*pair.one_hot, tolerance, spacing=spacing, use_subvoxels=True)
    return float(share)


@contextmanager
def _without_monai_warning() -> Iterator[None]:
    """Hide a deprecation warning that MONAI gives of its own call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        yield


@dataclass(frozen=True)
class Score(MetricValues):
    """How well one target of one case was segmented.

    Attributes:
        case: name of the case.
        label: name of the target.
        values: of each metric, by its name.
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

        A metric that the line lacks, or for which it has an empty cell or null, is NaN. Columns
        of metrics that are not registered are ignored.
        """
        values = {name: _number(stored.get(name)) for name in METRICS}
        volume_ml = _number(stored.get("volume_ml"))
        truth_ml = _number(stored.get("truth_ml"))
        return cls(stored["case"], stored["label"], values, volume_ml, truth_ml)

    def to_values(self) -> dict[str, str | float]:
        """Return all values by the name of their column, in the order of `score_columns`."""
        return {name: getattr(self, name) for name in score_columns()}

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


def score_columns() -> list[str]:
    """Return the columns of a table of scores: case, label, every metric, and the volumes."""
    return ["case", "label", *metrics_of("scores"), "volume_ml", "truth_ml"]


def _number(stored: str | float | None) -> float:
    return NAN if stored is None or stored == "" else float(stored)


def score_case(
    case: str,
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"],
    spacing_mm: Sequence[float] | np.ndarray,
    targets: Targets,
    nsd_tolerance_mm: float = 1.0,
) -> list[Score]:
    """Return the scores of a case, one per target.

    Args:
        case: name of the case.
        prediction: ids, 0 and those of the targets.
        truth: likewise; a 2D image has one slice, and its distances are those within the slice.
        spacing_mm: voxel size along the three axes, mm.
        targets: name of each target -> the ids that it unites.
        nsd_tolerance_mm: distance up to which the NSD counts two surfaces as equal, mm.

    Raises:
        ValueError: if the shapes differ or an id is neither 0 nor of a target.
    """
    metrics = metrics_of("scores")
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    pairs = mask_pairs(prediction, truth, spacing_mm, targets, nsd_tolerance_mm)
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
    values = np.array([getattr(row, name) for row in rows], dtype=float)
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else NAN


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
    return {name: _mean_of(rows, name) for name in metrics_of("summary")}


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Write a CSV file with a line per case and target."""
    rows = [list(score.to_values().values()) for score in scores]
    write_table(path, score_columns(), rows)
