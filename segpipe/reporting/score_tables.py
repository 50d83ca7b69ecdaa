"""Scores of cases as tables and boxes, the same on every page that shows scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segpipe.intervals import Interval, cases_and_labels, interval, metric_table
from segpipe.metric_record import Metric
from segpipe.metrics import Score, Summary, mean_dice_of, metrics_of, summarise
from segpipe.reporting.page import NOT_KNOWN, Cell, Column, Link, Picture, Sorted, Table, embed
from segpipe.reporting.plots import BoxPanel, draw_boxes
from segpipe.units import Units

BOXES_WIDTH = 1100  # pixels
POLICY = (
    "A label that neither mask has is not counted; one that only one of them has scores Dice, IoU "
    "and NSD 0 and the image's diagonal as distance. Intervals are 95 % bootstrap intervals over "
    "cases (BCa)."
)
MASK_ENDINGS = (".nii.gz", ".png", ".tif")
CASES_CAPTION = (
    "truth solid, prediction dashed; a click enlarges a picture, in full size it is in overlays/"
)


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
        units: of the lengths.
        caption: of the table.
    """
    intervals = mean_intervals(scores)
    columns = [Column("label")]
    metrics = metrics_of("summary", scores)
    for metric in metrics.values():
        columns.append(Column(units.in_text(metric.heading), metric.digits))
        columns.append(Column("95 % interval", sortable=False))
    columns += [Column("misses", 0), Column("false alarms", 0)]
    rows = [_summary_row(line, intervals[line.label], metrics) for line in summarise(scores)]
    return Table(caption, columns, rows)


def _summary_row(
    line: Summary, intervals: Mapping[str, Interval], metrics: Mapping[str, Metric]
) -> list[Cell]:
    row: list[Cell] = [line.label]
    for name, metric in metrics.items():
        row += [line.values[name], intervals[name].ends(metric.digits) or NOT_KNOWN]
    return [*row, line.misses, line.false_alarms]


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
        cells += [getattr(score, name) for name in metrics]
        cells += map(units.of_volume, (score.volume_ml, score.truth_ml))
        rows.append(cells)
    by_dice = Sorted([column.name for column in columns].index("Dice"))
    return Table("every case and label, the worst first", columns, rows, by_dice)


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
        scores: of the cases.
        pictures: that are inside the page, by case.
        folder: of the page; other pictures in `overlays/` are linked, and masks in `masks/`.
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
    panels: list[BoxPanel] = []
    for name, metric in metrics_of("summary", scores).items():
        values: dict[str, list[float]] = {}
        for score in scores:
            values.setdefault(score.label, []).append(getattr(score, name))
        panels.append(BoxPanel(units.in_text(metric.heading), values, metric.is_share))
    return embed_boxes(panels, file)


def embed_boxes(panels: Sequence[BoxPanel], file: Path) -> Picture:
    """Draw a plot of boxes into a file, for a page."""
    draw_boxes(panels, file)
    caption = "A point is a case; boxes hold the middle half of them, the line is the median."
    return embed(file, "a box plot of the cases for each label", BOXES_WIDTH, caption)
