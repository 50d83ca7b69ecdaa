"""The evidence of a sweep as tables: for the page, for Markdown, and as `study.csv`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from segpipe.metrics import all_metrics
from segpipe.reporting.page import Cell, Column, Link, Table, Value
from segpipe.reporting.score_tables import interval_cell
from segpipe.stored import SCHEMA
from segpipe.study.evidence import ALL, MAIN, Comparison, Evidence, VariantScore
from segpipe.study.findings import findings, in_points
from segpipe.study.legend import labels, letters
from segpipe.study.statistics import LEAST_CASES, inferiority
from segpipe.text import NOT_KNOWN, decimal, visible
from segpipe.verdict import Judgement

Row = dict[str, str | int | float]  # of study.csv: column -> value
COSTS = ("parameters", "multiply_adds", "step_mib", "seconds_per_step")


def variants_table(evidence: Evidence) -> Table:
    """Return a row per variant: the means over targets."""
    columns = [Column(evidence.noun), Column("runs", 0), Column("cases", 0)]
    columns += _score_columns(evidence)
    names = labels(evidence.sweep)
    rows: list[list[Cell]] = []
    for score in evidence.mean_scores:
        rows.append([names[score.variant], score.runs, score.cases, *_score_cells(score)])
    return _known(Table(f"all {evidence.noun}s, mean over targets", columns, rows))


def costs_table(evidence: Evidence) -> Table | None:
    """Return a row per variant: its size, operations, memory and time; None if not known."""
    if not evidence.costs:
        return None
    columns = [Column(evidence.noun), Column("parameters, M", 3), Column("multiply-adds, G", 2)]
    columns += [Column("step, MiB", 0), Column("step, s", 3)]
    names = labels(evidence.sweep)
    rows: list[list[Cell]] = []
    for cost in evidence.costs:
        cells: list[Cell] = [cost.parameters / 1e6, cost.multiply_adds / 1e9]
        rows.append([names[cost.variant], *cells, cost.step_mib, cost.seconds_per_step])
    return _known(Table("what each costs", columns, rows))


def targets_table(evidence: Evidence) -> Table:
    """Return a row for each target by each variant, ordered by target."""
    columns = [Column("target"), Column(evidence.noun), *_score_columns(evidence)]
    names = labels(evidence.sweep)
    rows: list[list[Cell]] = []
    for score in sorted(evidence.variant_scores, key=lambda score: score.label):
        if score.label != ALL:
            rows.append([score.label, names[score.variant], *_score_cells(score)])
    return _known(Table("each target", columns, rows))


def _known(table: Table) -> Table:
    """Return a table without the columns of which no row knows a value."""
    kept = [0]
    for place in range(1, len(table.columns)):
        if any(_is_known(row[place]) for row in table.rows):
            kept.append(place)
    columns = [table.columns[place] for place in kept]
    rows: list[list[Cell]] = []
    for row in table.rows:
        rows.append([row[place] for place in kept])
    return replace(table, columns=columns, rows=rows)


def _is_known(cell: Cell) -> bool:
    return cell is not None and not (isinstance(cell, float) and np.isnan(cell))


def _score_columns(evidence: Evidence) -> list[Column]:
    units = evidence.units
    columns: list[Column] = []
    for metric in evidence.metrics.values():
        columns.append(Column(units.in_text(metric.heading), metric.digits))
        if metric.tested:
            columns.append(Column(units.in_text(f"± {metric.title}"), metric.digits))
    return [*columns, Column("misses", 0), Column("false alarms", 0)]


def _score_cells(score: VariantScore) -> list[Cell]:
    cells: list[Cell] = []
    for name, interval in score.metrics.items():
        metric = all_metrics()[name]
        cells.append(interval_cell(interval, metric.digits))
        if metric.tested:
            cells.append(score.spread[name])
    return [*cells, score.misses, score.false_alarms]


def comparison_table(evidence: Evidence) -> Table:
    """Return a row per variant: its differences to the reference, with their tests."""
    columns = [Column(evidence.noun), Column("cases", 0), Column("runs of each", 0)]
    for metric in evidence.tested.values():
        heading = evidence.units.in_text(metric.difference_heading)
        columns += [Column(heading, metric.difference_digits), Column("p, Holm", 4)]
        columns.append(Column("effect", 2))
    if evidence.margin is not None:
        columns.append(Column(f"by a margin of {in_points(evidence.margin)}"))
    rows = [_comparison_cells(comparison, evidence) for comparison in evidence.comparisons]
    caption = f"{evidence.noun} less {labels(evidence.sweep)[evidence.reference.name]}"
    return _known(Table(caption, columns, rows))


def _comparison_cells(comparison: Comparison, evidence: Evidence) -> list[Cell]:
    main = comparison.differences[MAIN]
    label = labels(evidence.sweep)[comparison.variant.name]
    row: list[Cell] = [label, main.cases, main.runs]
    for name, metric in evidence.tested.items():
        difference = comparison.differences[name]
        interval = difference.interval.scaled(metric.difference_scale)
        row.append(interval_cell(interval, metric.difference_digits, plus=True))
        row += [_p_cell(comparison.p[name]), difference.effect]
    if evidence.margin is not None:
        enough = main.cases >= LEAST_CASES
        row.append(inferiority(main.interval, evidence.margin) if enough else None)
    return row


def _p_cell(p: float) -> Cell:
    return "< 0.0001" if p < 1e-4 else p


def problems_table(problems: Mapping[str, str]) -> Table:
    """Return a row per run that is not compared, with the reason."""
    columns = [Column("run"), Column("why")]
    return Table("runs that are not compared", columns, list(map(list, problems.items())))


def csv_table(evidence: Evidence) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of `study.csv`: one row per variant and target.

    Only rows of the mean over targets hold the cost and the comparison with the reference.
    """
    costs = {cost.variant: cost for cost in evidence.costs}
    comparisons = {comparison.variant.name: comparison for comparison in evidence.comparisons}
    rows: list[Row] = []
    for score in evidence.variant_scores:
        row = _score_row(score, evidence.noun)
        if score.label == ALL:
            for name in COSTS if evidence.costs else ():
                row[name] = getattr(costs[score.variant], name)
            comparison = comparisons.get(score.variant)
            row |= {} if comparison is None else _comparison_row(comparison)
        rows.append(row)
    header = _csv_header(evidence)
    return header, [list(map(row.get, header)) for row in rows]


def _csv_header(evidence: Evidence) -> list[str]:
    header = [evidence.noun, "label", "runs", "cases"]
    for name, metric in evidence.metrics.items():
        header.append(name)
        if metric.tested:
            header += [f"{name}_sd", f"{name}_low", f"{name}_high"]
    header += ["misses", "false_alarms", *(COSTS if evidence.costs else ())]
    for name in evidence.tested:
        header += [f"{name}_difference", f"{name}_difference_low", f"{name}_difference_high"]
        header += [f"{name}_p_holm", f"{name}_effect"]
    return header


def _score_row(score: VariantScore, noun: str) -> Row:
    row: Row = {noun: score.variant, "label": score.label}
    row |= {"runs": score.runs, "cases": score.cases}
    for name, interval in score.metrics.items():
        row[name] = interval.mean
        row[f"{name}_sd"] = score.spread[name]
        row[f"{name}_low"] = interval.low
        row[f"{name}_high"] = interval.high
    return row | {"misses": score.misses, "false_alarms": score.false_alarms}


def _comparison_row(comparison: Comparison) -> Row:
    row: Row = {}
    for name, p in comparison.p.items():
        difference = comparison.differences[name]
        row[f"{name}_difference"] = difference.interval.mean
        row[f"{name}_difference_low"] = difference.interval.low
        row[f"{name}_difference_high"] = difference.interval.high
        row[f"{name}_p_holm"] = p
        row[f"{name}_effect"] = difference.effect
    return row


def json_values(evidence: Evidence, verdict: Judgement) -> dict[str, Any]:
    """Return the content of `study.json` or `compare.json`: the answer, and the rows of the CSV."""
    header, rows = csv_table(evidence)
    return {
        "schema": SCHEMA,
        "kind": "study" if evidence.noun == "variant" else "comparison",
        "verdict": verdict.to_values(),
        "reference": evidence.reference.name,
        f"{evidence.noun}s": {short: name for name, short in letters(evidence.sweep).items()},
        "findings": findings(evidence),
        "scores": [dict(zip(header, row, strict=True)) for row in rows],
        "not_compared": dict(evidence.problems),
    }


def latex_tables(evidence: Evidence) -> dict[str, Table]:
    """Return the tables that a paper may show, by their labels in LaTeX."""
    tables = {f"{evidence.noun}s": variants_table(evidence), "targets": targets_table(evidence)}
    costs = costs_table(evidence)
    if costs is not None:
        tables["costs"] = costs
    if evidence.comparisons:
        tables["differences"] = comparison_table(evidence)
    return tables


def markdown_table(table: Table) -> list[str]:
    """Return a table as lines of Markdown."""
    headings = [_markdown(column.name) for column in table.columns]
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row in table.rows:
        cells = map(_markdown_cell, row, table.columns)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _markdown_cell(cell: Cell, column: Column) -> str:
    if isinstance(cell, int | float):
        return decimal(cell, column.digits or 0)
    if cell is None:
        return NOT_KNOWN
    return _markdown(cell.text if isinstance(cell, Link | Value) else str(cell))


def _markdown(text: str) -> str:
    """Return a text that no Markdown takes for a column, a link or HTML."""
    shown = visible(text).replace("<", "&lt;")
    for mark in ("|", "](", "`"):
        shown = shown.replace(mark, f"\\{mark}")
    return shown
