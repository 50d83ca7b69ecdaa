"""`crossval.html`: the scores of all cases of a cross-validation, each by a network new to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.metrics import Score, summarise
from segpipe.reporting.latex import write_latex
from segpipe.reporting.page import Cell, Column, Link, Page, Picture, Table, embed_all, write_page
from segpipe.reporting.run_record import RunRecord
from segpipe.reporting.run_tables import OVERLAY, PICTURES_MIB, WIDTH
from segpipe.reporting.score_tables import (
    cases_table,
    headings,
    mean_cells,
    mean_columns,
    policy,
    ranked_cases,
    score_boxes,
    scores_table,
    summary_table,
)
from segpipe.text import count
from segpipe.units import Units
from segpipe.verdict import Verdict, judge

FILES = ("ensemble.json", "validation.csv", "tables.tex", "postprocess.json", "train.log")


@dataclass(frozen=True)
class CrossvalPage(Page):
    """The content of `crossval.html`.

    Attributes:
        verdict: on all cases; None where none has a target.
        postprocess: what was chosen; empty where nothing was tried.
        summary: per label, the means over all cases.
        policy: what empty masks count.
        boxes: each metric over all cases of each label.
        reports: link to the page of each fold.
        folds: a row per fold, with a link to its page.
        cases: a picture of each case, the worst first.
        scores: a row per case and label, the worst first.
        files: beside the page.
    """

    verdict: Verdict | None
    postprocess: str
    summary: Table
    policy: str
    boxes: Picture
    reports: Sequence[Link]
    folds: Table
    cases: Table
    scores: Table
    files: Sequence[Link]


def write_crossval(file: Path, names: Sequence[str], postprocess: str) -> None:
    """Write the page of a cross-validation.

    Args:
        file: the file of the page, in the folder of the cross-validation.
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
    summary = summary_table(scores, units, "means over all cases")
    folds = _folds(runs, units)
    write_latex(file.parent / "tables.tex", {"result": summary, "folds": folds})
    homes: dict[str, str] = {}
    for name, run in runs.items():
        homes |= {score.case: name for score in run.scores}
    links = [Link(name, name) for name in FILES if (file.parent / name).is_file()]
    page = CrossvalPage(
        title=f"Cross-validation {file.resolve().parent.name}",
        lead=f"{count(len(cases), 'case')} in {len(names)} folds; mean Dice {mean:.3f}.",
        verdict=judge(scores, "training"),
        postprocess=postprocess,
        summary=summary,
        policy=policy(scores),
        boxes=score_boxes(scores, units, file.parent / "boxes.png"),
        reports=[Link(name, f"{name}/report.html") for name in names],
        folds=folds,
        cases=cases_table(scores, _pictures(scores, homes, file.parent), file.parent, homes),
        scores=scores_table(scores, units),
        files=links,
    )
    write_page(file, "crossval.html", page)


def _pictures(
    scores: Sequence[Score], homes: Mapping[str, str], folder: Path
) -> dict[str, Picture]:
    """Return pictures of cases, the worst first, as many as there is room for."""
    files: dict[str, Path] = {}
    for name in ranked_cases(scores):
        files[name] = folder / homes[name] / "overlays" / f"{name}.png"
    return embed_all(files, OVERLAY, WIDTH, PICTURES_MIB)


def _folds(runs: dict[str, RunRecord], units: Units) -> Table:
    """Return a row per fold with the means over its cases and labels."""
    scores: list[Score] = []
    for run in runs.values():
        scores += run.scores
    means = mean_columns(scores)
    rows: list[list[Cell]] = []
    for name, run in runs.items():
        report = Link(name, f"{name}/report.html")
        cases = len({score.case for score in run.scores})
        rows.append([report, cases, *mean_cells(run.scores, means)])
    columns = [Column("fold"), Column("cases", 0), *headings(means, units)]
    return Table("means of each fold", columns, rows)
