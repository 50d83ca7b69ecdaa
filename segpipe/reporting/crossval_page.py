"""`crossval.html`: the scores of all cases of a cross-validation, each by a network new to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.metrics import Score, metrics_of, summarise
from segpipe.reporting.page import Cell, Column, Link, Page, Table, write_page
from segpipe.reporting.run_record import RunRecord
from segpipe.reporting.score_tables import scores_table, summary_table
from segpipe.text import count
from segpipe.units import Units

FILES = ("ensemble.json", "validation.csv", "postprocess.json", "train.log")


@dataclass(frozen=True)
class CrossvalPage(Page):
    """The content of `crossval.html`.

    Attributes:
        postprocess: what was chosen; empty where nothing was tried.
        summary: per label, the means over all cases.
        folds: a row per fold.
        scores: a row per case and label, the worst first.
        files: beside the page, and the page of each fold.
    """

    postprocess: str
    summary: Table
    folds: Table
    scores: Table
    files: Sequence[Link]


def write_crossval(file: Path, names: Sequence[str], postprocess: str) -> None:
    """Write the page of a cross-validation.

    Args:
        file: of the page, in the folder of the cross-validation.
        names: folders of the folds, beside it.
        postprocess: what was chosen, in one line.

    Raises:
        DataError: if it cannot be written.
    """
    runs = {name: RunRecord(file.parent / name) for name in names}
    units = runs[names[0]].units
    scores: list[Score] = []
    for run in runs.values():
        scores += run.scores
    cases = {score.case for score in scores}
    mean = summarise(scores)[-1].dice
    links = [Link(name, name) for name in FILES if (file.parent / name).is_file()]
    page = CrossvalPage(
        title=f"Cross-validation {file.resolve().parent.name}",
        lead=f"{count(len(cases), 'case')} in {len(names)} folds; mean Dice {mean:.3f}.",
        postprocess=postprocess,
        summary=summary_table(scores, units, "means over all cases"),
        folds=_folds(runs, units),
        scores=scores_table(scores, units),
        files=[*links, *(Link(name, f"{name}/report.html") for name in names)],
    )
    write_page(file, "crossval.html", page)


def _metric_columns(scores: Sequence[Score], units: Units) -> list[Column]:
    columns = []
    for metric in metrics_of("summary", scores).values():
        columns.append(Column(units.in_text(metric.heading), metric.digits))
    return columns


def _folds(runs: dict[str, RunRecord], units: Units) -> Table:
    """Return a row per fold with the means over its cases and labels."""
    scores: list[Score] = []
    for run in runs.values():
        scores += run.scores
    columns = [Column("fold"), Column("cases", 0), *_metric_columns(scores, units)]
    rows: list[list[Cell]] = []
    for name, run in runs.items():
        mean = summarise(run.scores)[-1]
        values = [getattr(mean, metric) for metric in metrics_of("summary", scores)]
        rows.append([name, len({score.case for score in run.scores}), *values])
    return Table("means of each fold", columns, rows)
