"""Scores of cases as tables and boxes, the same on every page that shows scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.intervals import Interval, cases_and_labels, interval, metric_table
from segpipe.metric_record import Metric
from segpipe.metrics import Score, mean_dice_of, metrics_of, summarise
from segpipe.reporting.page import Cell, Column, Link, Picture, Sorted, Table, Value, embed
from segpipe.reporting.plots import BoxPanel, draw_boxes
from segpipe.text import decimal
from segpipe.units import Units

BOXES_WIDTH = 1100  # pixels
PENALTY = "†"
POLICY = (
    "A label that neither mask has is not counted; one that only one of them has scores Dice, IoU "
    "and NSD 0 and the image's diagonal as distance. Intervals are 95 % bootstrap intervals over "
    "cases (BCa)."
)
PENALTIES = (
    f"A distance with {PENALTY}, a hollow point in plots, is not measured, but only this penalty "
    "for a missing mask; the mean where found leaves it out."
)
MASK_ENDINGS = (".nii.gz", ".png", ".tif")
CASES_CAPTION = (
    "truth solid, prediction dashed; a click enlarges a picture, in full size it is in overlays/"
)


def policy(scores: Sequence[Score]) -> str:
    """Return what empty masks count, and how their distances are marked where there are any."""
    return f"{POLICY} {PENALTIES}" if any(map(_one_mask_lacks_it, scores)) else POLICY


def mean_intervals(scores: Sequence[Score]) -> dict[str, dict[str, Interval]]:
    """Return for each label, and `mean` for all, the interval of each metric of the summary."""
    cases, labels = cases_and_labels(scores)
    found: dict[str, dict[str, Interval]] = {label: {} for label in [*labels, "mean"]}
    for name in metrics_of("summary", scores):
        table = metric_table(scores, name, cases, labels)
        for column, label in enumerate(labels):
            found[label][name] = interval(table[:, [column]])
        found["mean"][name] = interval(table)
    return found


def summary_values(scores: Sequence[Score]) -> list[dict[str, str | float]]:
    """Return the lines of a summary as plain values, with the ends of their intervals."""
    intervals = mean_intervals(scores)
    lines: list[dict[str, str | float]] = []
    for line in summarise(scores):
        values = dict(line.to_values())
        for name, ends in intervals[line.label].items():
            values |= {f"{name}_low": ends.low, f"{name}_high": ends.high}
        lines.append(values)
    return lines


def summary_table(scores: Sequence[Score], units: Units, caption: str) -> Table:
    """Return a row per label with the means over cases and their intervals; the last is the mean.

    Args:
        scores: at least one.
        units: the units of the lengths.
        caption: the caption of the table.
    """
    means = mean_columns(scores)
    columns = [Column("label"), *headings(means, units)]
    columns += [Column("misses", 0), Column("false alarms", 0)]
    rows: list[list[Cell]] = []
    for line in summarise(scores):
        of_line = [score for score in scores if line.label in (score.label, "mean")]
        rows.append([line.label, *mean_cells(of_line, means), line.misses, line.false_alarms])
    return Table(caption, columns, rows)


@dataclass(frozen=True)
class MeanColumn:
    """A column of means.

    Attributes:
        name: the name of the metric.
        metric: whose mean it shows.
        where_found: whether cases are left out in which only one mask has the label.
    """

    name: str
    metric: Metric
    where_found: bool = False


def mean_columns(scores: Sequence[Score]) -> list[MeanColumn]:
    """Return the columns of the summary's metrics.

    A distance has a second one where the penalty for a missing mask is part of its mean.
    """
    columns: list[MeanColumn] = []
    for name, metric in metrics_of("summary", scores).items():
        columns.append(MeanColumn(name, metric))
        if metric.is_distance and any(map(_one_mask_lacks_it, scores)):
            columns.append(MeanColumn(name, metric, where_found=True))
    return columns


def headings(means: Sequence[MeanColumn], units: Units) -> list[Column]:
    """Return the heads of columns of means."""
    columns: list[Column] = []
    for mean in means:
        heading = mean.metric.heading
        if mean.where_found:
            heading = f"{mean.metric.title} where found, {mean.metric.unit}"
        columns.append(Column(units.in_text(heading), mean.metric.digits))
    return columns


def mean_cells(scores: Sequence[Score], means: Sequence[MeanColumn]) -> list[Cell]:
    """Return the mean of each column over targets and cases, with its 95 % interval."""
    known = [score for score in scores if not np.isnan(score.dice)]
    found = [score for score in known if not _one_mask_lacks_it(score)]
    cells: list[Cell] = []
    for mean in means:
        averaged = found if mean.where_found else known
        table = metric_table(averaged, mean.name, *cases_and_labels(averaged))
        mark = PENALTY if mean.metric.is_distance and not found else ""
        cells.append(interval_cell(interval(table), mean.metric.digits, mark))
    return cells


def interval_cell(measured: Interval, digits: int, mark: str = "", plus: bool = False) -> Cell:
    """Return a mean with its interval; None where it is not known.

    Args:
        measured: mean and interval.
        digits: decimals.
        mark: at the end of the text.
        plus: whether a positive mean has its sign, as a difference does.
    """
    text = measured.shown(digits, plus)
    return Value(measured.mean, text + mark) if text else None


def _one_mask_lacks_it(score: Score) -> bool:
    """Return whether a distance of this score is not measured, but a penalty."""
    return score.is_miss or score.is_false_alarm


def scores_table(scores: Sequence[Score], units: Units) -> Table:
    """Return a row per case and label, the lowest Dice first; targets in neither mask are last."""
    columns = [Column("case"), Column("label")]
    metrics = metrics_of("scores", scores)
    for metric in metrics.values():
        columns.append(Column(units.in_text(metric.heading), metric.digits))
    for name in ("volume", "truth"):
        columns.append(Column(f"{name}, {units.volume}", units.digits))
    rows: list[list[Cell]] = []
    for score in sorted(scores, key=lambda score: _rank(score.dice)):
        cells: list[Cell] = [score.case, score.label]
        cells += [_score_cell(score, name, metric) for name, metric in metrics.items()]
        cells += map(units.of_volume, (score.volume_ml, score.truth_ml))
        rows.append(cells)
    by_dice = Sorted([column.name for column in columns].index("Dice"))
    return Table("every case and label, the worst first", columns, rows, by_dice)


def _score_cell(score: Score, name: str, metric: Metric) -> Cell:
    """Return the value of a metric, marked where it is the penalty for a missing mask."""
    number = getattr(score, name)
    if metric.is_distance and _one_mask_lacks_it(score):
        return Value(number, f"{decimal(number, metric.digits)}{PENALTY}")
    return number


def _rank(dice: float) -> float:
    """Return the Dice; what is not known ranks last."""
    return float("inf") if np.isnan(dice) else float(dice)


def ranked_cases(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Return the scores of each case, the lowest mean Dice first and unknown ones last."""
    cases: dict[str, list[Score]] = {}
    for score in scores:
        cases.setdefault(score.case, []).append(score)
    order = sorted(cases, key=lambda name: _rank(mean_dice_of(cases[name])))
    return {name: cases[name] for name in order}


def cases_table(
    scores: Sequence[Score],
    pictures: Mapping[str, Picture],
    folder: Path,
    folds: Mapping[str, str] | None = None,
) -> Table:
    """Return a row per case with its mask and its picture, the worst first.

    Args:
        scores: the scores of the cases.
        pictures: that are inside the page, by case.
        folder: the folder of the page; other pictures in `overlays/` are linked, and masks in
            `masks/`.
        folds: folder of the fold that scored each case, beside the page; None: of no folds.
    """
    digits = metrics_of("scores")["dice"].digits
    labels = list(dict.fromkeys(score.label for score in scores))
    columns = [Column("case"), Column("picture", sortable=False)]
    if folds:
        columns.append(Column("fold"))
    columns += [Column("Dice, mean", digits), *(Column(f"Dice {name}", digits) for name in labels)]
    rows: list[list[Cell]] = []
    for name, of_case in ranked_cases(scores).items():
        dice = {score.label: score.dice for score in of_case}
        place = f"{folds[name]}/" if folds else ""
        row = [_mask_link(name, folder, place), pictures.get(name) or _linked(name, folder, place)]
        if folds:
            row.append(folds[name])
        rows.append([*row, mean_dice_of(of_case), *map(dice.get, labels)])
    return Table(CASES_CAPTION, columns, rows, Sorted(3 if folds else 2))


def _linked(name: str, folder: Path, place: str) -> Link | None:
    """Return a link to the picture of a case; None where there is none."""
    file = f"{place}overlays/{name}.png"
    return Link("picture", file) if (folder / file).is_file() else None


def _mask_link(name: str, folder: Path, place: str) -> Link | str:
    """Return the name of a case, as a link where its mask is there."""
    for ending in MASK_ENDINGS:
        file = f"{place}masks/{name}{ending}"
        if (folder / file).is_file():
            return Link(name, file)
    return name


def score_boxes(scores: Sequence[Score], units: Units, file: Path) -> Picture:
    """Draw each metric of the summary over the cases of each label into a file, for a page."""
    lacking: dict[str, list[bool]] = {}
    for score in scores:
        lacking.setdefault(score.label, []).append(_one_mask_lacks_it(score))
    panels: list[BoxPanel] = []
    for name, metric in metrics_of("summary", scores).items():
        values: dict[str, list[float]] = {}
        for score in scores:
            values.setdefault(score.label, []).append(getattr(score, name))
        hollow = lacking if metric.is_distance else {}
        panels.append(BoxPanel(units.in_text(metric.heading), values, metric.is_share, hollow))
    return embed_boxes(panels, file)


def embed_boxes(panels: Sequence[BoxPanel], file: Path) -> Picture:
    """Draw a plot of boxes into a file, for a page."""
    draw_boxes(panels, file)
    caption = "Each point is one case; boxes show the interquartile range, lines the median."
    return embed(file, "a box plot of the cases for each label", BOXES_WIDTH, caption)
