"""A sweep's evidence as tables: for the page, for Markdown, and as the lines of a CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.reporting.page import Cell, Column, Table
from segpipe.study.evidence import ALL, METRICS, TESTED, Comparison, Cost, Evidence, VariantScore
from segpipe.study.statistics import Interval


@dataclass(frozen=True)
class StudyRow:
    """A line of `study.csv`: one variant and target; of the mean over targets also the costs and the comparison."""

    variant: str
    label: str
    runs: int
    cases: int
    dice: float
    dice_sd: float
    dice_low: float
    dice_high: float
    iou: float
    hd95_mm: float
    nsd: float
    nsd_sd: float
    nsd_low: float
    nsd_high: float
    misses: int
    false_alarms: int
    parameters: int | None = None
    multiply_adds: int | None = None
    step_mib: float | None = None
    seconds_per_step: float | None = None
    dice_difference: float | None = None
    dice_difference_low: float | None = None
    dice_difference_high: float | None = None
    dice_p_holm: float | None = None
    dice_effect: float | None = None
    nsd_difference: float | None = None
    nsd_p_holm: float | None = None


def _range(found: Interval, scale: float = 1.0, digits: int = 3) -> str:
    if not np.isfinite(found.low):
        return "—"
    return f"{scale * found.low:.{digits}f} to {scale * found.high:.{digits}f}"


def variants_table(evidence: Evidence) -> Table:
    """All variants, the mean over targets, with what they cost."""
    columns = [
        Column("variant"),
        *(Column(name, 0) for name in ("runs", "cases")),
        *(Column(name, 4) for name in ("Dice", "± runs")),
        *(Column("95 % interval", sortable=False), Column("IoU", 4), Column("HD95, mm", 2)),
        *(Column(name, 4) for name in ("NSD 1 mm", "± NSD")),
        *(Column(name, 0) for name in ("misses", "false alarms")),
        *(
            Column("parameters, M", 3),
            Column("multiply-adds, G", 2),
            Column("step, MiB", 0),
            Column("step, s", 3),
        ),
    ]
    variant_scores = [one for one in evidence.variant_scores if one.label == ALL]
    rows = [
        _standing(one) + _priced(price)
        for one, price in zip(variant_scores, evidence.costs, strict=True)
    ]
    return Table("all variants, mean over targets", columns, rows)


def _standing(one: VariantScore) -> list[Cell]:
    metrics, spread = one.metrics, one.spread
    dice: list[Cell] = [metrics["dice"].mean, spread["dice"], _range(metrics["dice"], digits=4)]
    rest: list[Cell] = [
        metrics["iou"].mean,
        metrics["hd95_mm"].mean,
        metrics["nsd"].mean,
        spread["nsd"],
    ]
    return [one.variant, one.runs, one.cases, *dice, *rest, one.misses, one.false_alarms]


def _priced(price: Cost) -> list[Cell]:
    return [
        price.parameters / 1e6,
        price.multiply_adds / 1e9,
        price.step_mib,
        price.seconds_per_step,
    ]


def targets_table(variant_scores: Sequence[VariantScore]) -> Table:
    """Each target by each variant."""
    columns = [
        *(Column("target"), Column("variant")),
        *(Column(name, 4) for name in ("Dice", "± runs")),
        *(Column("95 % interval", sortable=False), Column("IoU", 4), Column("HD95, mm", 2)),
        *(Column(name, 4) for name in ("NSD 1 mm", "± NSD")),
        *(Column(name, 0) for name in ("misses", "false alarms")),
    ]
    rows = [
        [one.label, one.variant, *_standing(one)[3:]] for one in variant_scores if one.label != ALL
    ]
    return Table("each target", columns, sorted(rows, key=lambda row: str(row[0])))


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """What each variant has more than the reference."""
    columns = [Column("variant"), Column("cases", 0), Column("runs of each", 0)]
    for metric in TESTED:
        columns += [
            Column(f"{METRICS[metric]}, points", 2),
            Column("95 % interval", sortable=False),
        ]
        columns += [Column("p, Holm", 4), Column("effect", 2)]
    rows: list[list[Cell]] = []
    for one in comparisons:
        row: list[Cell] = [
            one.variant.name,
            one.differences["dice"].cases,
            one.differences["dice"].runs,
        ]
        for metric in TESTED:
            found = one.differences[metric]
            row += [
                100 * found.interval.mean,
                _range(found.interval, 100, 2),
                _p(one.p[metric]),
                found.effect,
            ]
        rows.append(row)
    return Table("variant less reference", columns, rows)


def _p(p: float) -> Cell:
    return "< 0.0001" if p < 1e-4 else p


def problems_table(problems: Mapping[str, str]) -> Table:
    """Runs that are not compared, and why."""
    return Table(
        "runs that are not compared",
        [Column("run"), Column("why")],
        [list(one) for one in problems.items()],
    )


def csv_rows(evidence: Evidence) -> list[StudyRow]:
    """The lines of `study.csv`."""
    costs = {price.variant: price for price in evidence.costs}
    compared = {one.variant.name: one for one in evidence.comparisons}
    rows = []
    for one in evidence.variant_scores:
        dice, nsd = one.metrics["dice"], one.metrics["nsd"]
        start = [
            one.variant,
            one.label,
            one.runs,
            one.cases,
            dice.mean,
            one.spread["dice"],
            dice.low,
            dice.high,
        ]
        rest = [
            one.metrics["iou"].mean,
            one.metrics["hd95_mm"].mean,
            nsd.mean,
            one.spread["nsd"],
            nsd.low,
            nsd.high,
        ]
        row = StudyRow(*start, *rest, one.misses, one.false_alarms)  # type: ignore[arg-type]
        rows.append(
            _with_costs(row, costs[one.variant], compared.get(one.variant))
            if one.label == ALL
            else row
        )
    return rows


def _with_costs(row: StudyRow, price: Cost, compared: Comparison | None) -> StudyRow:
    found: dict[str, float | None] = {}
    if compared is not None:
        dice, nsd = (compared.differences[metric] for metric in TESTED)
        found = {
            "dice_difference": dice.interval.mean,
            "dice_difference_low": dice.interval.low,
            "dice_difference_high": dice.interval.high,
            "dice_p_holm": compared.p["dice"],
            "dice_effect": dice.effect,
            "nsd_difference": nsd.interval.mean,
            "nsd_p_holm": compared.p["nsd"],
        }
    costs = {
        name: getattr(price, name)
        for name in ("parameters", "multiply_adds", "step_mib", "seconds_per_step")
    }
    return StudyRow(**{**vars(row), **costs, **found})


def markdown_table(table: Table) -> list[str]:
    """A table as lines of Markdown."""
    heads = [column.name for column in table.columns]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in table.rows:
        cells = [_text(cell, column) for cell, column in zip(row, table.columns, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _text(cell: Cell, column: Column) -> str:
    if isinstance(cell, int | float):
        return "—" if np.isnan(cell) else f"{cell:.{column.digits or 0}f}"
    return str(cell)
