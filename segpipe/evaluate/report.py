"""The results of masks against truths as files: page, JSON and tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe import __version__
from segpipe.config.evaluate import Evaluate
from segpipe.evaluate.pairing import Pairing
from segpipe.evaluate.scoring import CaseResult
from segpipe.files import write_table, write_text
from segpipe.metrics import Score, tolerance_text, write_scores
from segpipe.reporting.latex import write_latex
from segpipe.reporting.page import Cell, Column, Link, Page, Picture, Sorted, Table, embed_all
from segpipe.reporting.page import write_page as write_html
from segpipe.reporting.run_record import plain
from segpipe.reporting.score_tables import (
    cases_table,
    policy,
    ranked_cases,
    score_boxes,
    scores_table,
    summary_table,
    summary_values,
)
from segpipe.stored import SCHEMA
from segpipe.text import count, times
from segpipe.units import UNITS, UnitName, Units
from segpipe.verdict import Verdict, judge

PAGE = "report.html"
MACHINES = "report.json"
KIND = "evaluation"  # of `report.json`, which a run has too
WIDTH = 1400  # pixels of a picture inside the page
PICTURES_MIB = 24.0  # beyond this, pictures are linked: a larger page is slow to open
NAMED = 8  # names that a line holds at most


@dataclass(frozen=True)
class Evaluation:
    """All that is known of the cases.

    Attributes:
        options: the options of the call.
        labels: name of each target -> its ids; None where every id was scored.
        pairing: which masks and truths belong together.
        results: the results of the cases, by name.
        scores: the scores of all that were scored, one for each case and target.
    """

    options: Evaluate
    labels: Mapping[str, Sequence[int]] | None
    pairing: Pairing
    results: Sequence[CaseResult]
    scores: Sequence[Score]

    @property
    def refused(self) -> list[CaseResult]:
        """Return the cases that could not be scored."""
        return [result for result in self.results if result.reason]

    @property
    def unit(self) -> UnitName:
        """Return the unit of the cases: pixels where all of them are images without mm."""
        units: set[UnitName] = {result.unit for result in self.results if not result.reason}
        return units.pop() if len(units) == 1 else "mm"

    @property
    def units(self) -> Units:
        """Return the units in which lengths and volumes are shown."""
        return UNITS[self.unit]

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict on the scores; None where there are none."""
        return judge(self.scores, "masks")


@dataclass(frozen=True)
class EvaluationPage(Page):
    """The content of `report.html` of an evaluation.

    Attributes:
        verdict: on the scores; None where there are none.
        missing: sentences on masks and truths without a partner.
        refused: cases that could not be scored; None where all could.
        summary: per label, the means over cases; None where nothing was scored.
        scored: how the cases were scored.
        boxes: each metric over the cases of each label.
        cases: a picture of each case, the worst first.
        warnings: warnings on cases that were scored; None where there are none.
        scores: a row per case and label, the worst first.
        facts: the options, name and text.
        files: links to the files beside the page.
    """

    verdict: Verdict | None
    missing: Sequence[str]
    refused: Table | None
    summary: Table | None
    scored: str
    boxes: Picture | None
    cases: Table | None
    warnings: Table | None
    scores: Table | None
    facts: Sequence[tuple[str, str]]
    files: Sequence[Link]


def complete(results: Sequence[CaseResult]) -> list[Score]:
    """Return a score for each case and target; where neither mask has it, its metrics are NaN."""
    labels: dict[str, None] = {}
    for result in results:
        labels |= dict.fromkeys(score.label for score in result.scores)
    ordered = sorted(labels, key=int) if all(map(str.isdecimal, labels)) else list(labels)
    scores: list[Score] = []
    for result in results:
        if result.reason:
            continue
        known = {score.label: score for score in result.scores}
        for label in ordered:
            scores.append(known.get(label) or Score(result.name, label, {}, 0.0, 0.0))
    return scores


def write_evaluation(found: Evaluation, folder: Path) -> None:
    """Write `report.html`, `report.json`, `tables.tex`, `scores.csv` and `cases.csv`.

    Raises:
        DataError: if they cannot be written.
    """
    write_scores(found.scores, folder / "scores.csv")
    rows = [_case_row(result) for result in found.results]
    write_table(folder / "cases.csv", ["case", "status", "reason", "warnings", *PATHS], rows)
    content = json.dumps(plain(_for_machines(found)), indent=1, allow_nan=False)
    write_text(folder / MACHINES, content + "\n")
    write_html(folder / PAGE, "evaluation.html", _page(found, folder))


PATHS = ("prediction", "truth", "image")


def _case_row(result: CaseResult) -> list[str]:
    status = "refused" if result.reason else "scored"
    files = [str(getattr(result.pair, name) or "") for name in PATHS]
    return [result.name, status, result.reason, "; ".join(result.warnings), *files]


def _for_machines(found: Evaluation) -> dict[str, Any]:
    """Return the content of `report.json`."""
    cases: list[dict[str, Any]] = []
    for result in found.results:
        files = {name: str(getattr(result.pair, name) or "") for name in PATHS}
        about = {"reason": result.reason, "warnings": result.warnings, "drawn": result.drawn}
        cases.append({"name": result.name, **files, **about})
    verdict = found.verdict
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "segpipe": __version__,
        "verdict": None if verdict is None else verdict.to_values(),
        "unit": found.unit,
        "labels": found.labels,
        "summary": summary_values(found.scores) if found.scores else [],
        "scores": [score.to_values() for score in found.scores],
        "cases": cases,
        "without_prediction": list(found.pairing.without_prediction),
        "without_truth": list(found.pairing.without_truth),
        "options": found.options.model_dump(mode="json"),
    }


def _page(found: Evaluation, folder: Path) -> EvaluationPage:
    scored = len(found.results) - len(found.refused)
    lead = f"{count(scored, 'case')} scored, {len(found.refused)} refused"
    units = found.units
    scores = found.scores
    caption = f"means over {count(scored, 'case')}"
    files = ["scores.csv", "cases.csv", MACHINES]
    summary = summary_table(scores, units, caption) if scores else None
    if summary is not None:
        write_latex(folder / "tables.tex", {"result": summary})
        files.append("tables.tex")
    return EvaluationPage(
        title=f"Evaluation {folder.resolve().name}",
        lead=f"{lead}.",
        verdict=found.verdict,
        missing=missing_lines(found),
        refused=_refused(found.refused) if found.refused else None,
        summary=summary,
        scored=policy(scores),
        boxes=score_boxes(scores, units, folder / "boxes.png") if scores else None,
        cases=cases_table(scores, _pictures(found, folder), folder) if scores else None,
        warnings=_warnings(found.results),
        scores=scores_table(scores, units) if scores else None,
        facts=_facts(found),
        files=[Link(name, name) for name in files],
    )


def missing_lines(found: Evaluation) -> list[str]:
    """Return a sentence each on truths without a mask, and on masks without a truth."""
    lines: list[str] = []
    pairing = found.pairing
    if pairing.without_prediction:
        text = f"{_counted(pairing.without_prediction, 'truth')} without a mask"
        if found.options.missing == "empty":
            text += ", scored as empty masks"
        else:
            text += ": not in the means, so a tool that failed there looks better than it is"
        lines.append(f"{text}: {_named(pairing.without_prediction)}")
    if pairing.without_truth:
        text = f"{_counted(pairing.without_truth, 'mask')} without a truth, not scored"
        lines.append(f"{text}: {_named(pairing.without_truth)}")
    return lines


def _counted(names: Sequence[str], noun: str) -> str:
    return count(len(names), noun)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
    return ", ".join(names[:NAMED]) + more


def _refused(refused: Sequence[CaseResult]) -> Table:
    rows: list[list[Cell]] = [[result.name, result.reason] for result in refused]
    caption = f"{count(len(rows), 'case')} that could not be scored"
    return Table(caption, [Column("case"), Column("reason")], rows, Sorted(0))


def _warnings(results: Sequence[CaseResult]) -> Table | None:
    rows: list[list[Cell]] = []
    for result in results:
        if result.warnings and not result.reason:
            rows.append([result.name, "; ".join(result.warnings)])
    if not rows:
        return None
    caption = f"{count(len(rows), 'case')} with a warning"
    return Table(caption, [Column("case"), Column("warning")], rows, Sorted(0))


def _pictures(found: Evaluation, folder: Path) -> dict[str, Picture]:
    """Return pictures of the cases, the worst first, as many as there is room for."""
    files = {name: folder / "overlays" / f"{name}.png" for name in ranked_cases(found.scores)}
    drawn = {result.name for result in found.results if result.drawn}
    files = {name: file for name, file in files.items() if name in drawn}
    return embed_all(files, "mask and truth in three slices", WIDTH, PICTURES_MIB)


def _facts(found: Evaluation) -> list[tuple[str, str]]:
    options = found.options
    facts = {
        "masks": options.prediction,
        "truths": options.truth or options.prediction,
        "scans": options.images or "",
        "labels": _labels_text(found),
        "id that is not scored": "" if options.ignore is None else str(options.ignore),
        "surfaces count as one within": tolerance_text(options, found.units.length),
        "segpipe": __version__,
    }
    return [(name, str(text)) for name, text in facts.items() if text]


def _labels_text(found: Evaluation) -> str:
    if found.labels is None:
        return "every id that occurs"
    return ", ".join(f"{name} {times(ids)}" for name, ids in found.labels.items())
