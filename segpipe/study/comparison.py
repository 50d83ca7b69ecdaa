"""`python -m segpipe.study compare`: systems of any origin, case by case, as page and tables."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.config.compare import Compare
from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import make_folder, write_json, write_table, write_text
from segpipe.intervals import metric_table
from segpipe.metrics import metrics_of
from segpipe.reporting.latex import write_latex
from segpipe.reporting.page import (
    Cell,
    Column,
    Link,
    Page,
    Picture,
    Table,
    embed,
    embed_overlay,
    write_page,
)
from segpipe.reporting.rendering import show_verdict
from segpipe.reporting.run_record import plain
from segpipe.study.answer import answer
from segpipe.study.common_cases import Common, find_common
from segpipe.study.evidence import Evidence, analyse_systems
from segpipe.study.findings import findings
from segpipe.study.hard_cases import draw_case
from segpipe.study.legend import labels, legend, letters
from segpipe.study.plots import draw_cases, draw_differences
from segpipe.study.report import POLICY, SMALL, TESTS, WIDTH, show_study
from segpipe.study.sources import System, read_systems
from segpipe.study.statistics import mean_of_rows, mean_over_runs
from segpipe.study.sweep import Sweep
from segpipe.study.tables import (
    comparison_table,
    csv_table,
    json_values,
    latex_tables,
    markdown_table,
    targets_table,
    variants_table,
)
from segpipe.terminal import show_next
from segpipe.text import count
from segpipe.verdict import Judgement

log = logging.getLogger("segpipe")
PAGE = "compare.html"
FILES = ("compare.json", "compare.csv", "cases.csv", "compare.md", "compare.tex")
FALSE_ALARMS = (
    "A target that is absent from the truth, and found there by one of two systems alone, has no "
    "difference: see the numbers of false alarms."
)
MARGIN = (
    "Not inferior by a margin: the 95 % interval of the difference of Dice lies above minus the "
    "margin, which must have been chosen before the scores were seen."
)
Dice = Mapping[str, Sequence[float]]  # name of a case -> Dice by each system


@dataclass(frozen=True)
class ComparePage(Page):
    """The content of `compare.html`.

    Attributes:
        verdict: which system is better.
        findings: sentences to quote.
        legend: what each letter stands for.
        cases: sentences on the cases that are compared.
        comparisons: with the reference.
        plots: differences and single cases.
        differing: pictures of the cases that differ most; None where there are none.
        systems: the mean over targets.
        labels: a row per target and system.
        every_case: Dice by each system.
        left_out: cases with the reason; None where there are none.
        notes: how the figures were made.
        files: beside the page.
    """

    verdict: Judgement
    findings: Sequence[str]
    legend: Table
    cases: Sequence[str]
    comparisons: Table
    plots: Sequence[Picture]
    differing: Table | None
    systems: Table
    labels: Table
    every_case: Table
    left_out: Table | None
    notes: Sequence[str]
    files: Sequence[Link]


def compare_systems(options: Compare) -> Evidence:
    """Compare systems on their common cases; write page, tables and pictures.

    Raises:
        ConfigError: if there is nothing to compare, or the output cannot be used.
    """
    systems = read_systems(options.systems, options.names)
    if len(systems) < 2:
        raise ConfigError("compare: one system alone; name at least two")
    reference = _reference(systems, options.reference)
    common = find_common(systems)
    make_folder(options.folder)
    kept = Sweep(options.folder, common.systems, common.left_out)
    chosen = common.systems[systems.index(reference)]
    evidence = analyse_systems(kept, chosen, options.margin)
    dice = _dice_of_cases(evidence.sweep.variants)
    verdict = answer(evidence, common.cautions)
    _write_tables(evidence, verdict, common, dice, options.folder)
    page = _page(evidence, verdict, common, dice, options)
    write_page(options.folder / PAGE, "compare.html", page)
    for note in common.notes:
        log.info("%s", note)
    show_study(evidence)
    files = {"report": PAGE, "for a paper": "compare.md", "table": "compare.csv"}
    show_next([(purpose, options.folder / name) for purpose, name in files.items()])
    show_verdict(verdict)
    return evidence


def _reference(systems: Sequence[System], requested: str | None) -> System:
    """Return the system of a name; without one, the first.

    Raises:
        ConfigError: if none has the name.
    """
    if requested is None:
        return systems[0]
    for system in systems:
        if system.name == requested:
            return system
    names = ", ".join(system.name for system in systems)
    raise ConfigError(f"reference={requested}: is none of the systems: {names}")


def _dice_of_cases(systems: Sequence[System]) -> Dice:
    """Return for each case its Dice by each system, the mean over runs and targets."""
    first = next(iter(systems[0].runs.values()))
    labels = list(dict.fromkeys(score.label for score in first.scores))
    cases: dict[str, None] = {}
    for system in systems:
        for source in system.runs.values():
            cases |= dict.fromkeys(sorted(source.cases))
    columns: list[list[float]] = []
    for system in systems:
        tables = [
            metric_table(run.scores, "dice", list(cases), labels) for run in system.runs.values()
        ]
        columns.append(mean_of_rows(mean_over_runs(np.array(tables))))
    return dict(zip(cases, map(list, zip(*columns, strict=True)), strict=True))


def _write_tables(
    evidence: Evidence, verdict: Judgement, common: Common, dice: Dice, folder: Path
) -> None:
    """Write `compare.csv`, `compare.json`, `cases.csv`, `compare.md` and `compare.tex`."""
    write_json(folder / "compare.json", plain(json_values(evidence, verdict)))
    write_table(folder / "compare.csv", *csv_table(evidence))
    names = [system.name for system in evidence.sweep.variants]
    rows: list[Sequence[object]] = [[case, *values, ""] for case, values in dice.items()]
    for case, why in common.left_out.items():
        rows.append([case, *[""] * len(names), why])
    write_table(folder / "cases.csv", ["case", *names, "left out"], rows)
    lines = [f"# {count(len(names), 'system')}, compared with {evidence.reference.name}", ""]
    lines += [f"**{verdict.sentence}**", ""]
    lines += [f"- {line}" for line in [*findings(evidence), *common.notes, *verdict.advice]]
    lines += ["", *markdown_table(legend(evidence.sweep, evidence.noun))]
    lines += ["", *markdown_table(comparison_table(evidence))]
    lines += ["", *markdown_table(variants_table(evidence))]
    lines += ["", *markdown_table(targets_table(evidence)), "", "\n\n".join(_method(evidence))]
    write_text(folder / "compare.md", "\n".join(lines) + "\n")
    write_latex(folder / "compare.tex", latex_tables(evidence))


def _method(evidence: Evidence) -> list[str]:
    margin = [] if evidence.margin is None else [MARGIN]
    return [POLICY, TESTS, FALSE_ALARMS, *margin]


def _page(
    evidence: Evidence, verdict: Judgement, common: Common, dice: Dice, options: Compare
) -> ComparePage:
    reference = labels(evidence.sweep)[evidence.reference.name]
    return ComparePage(
        title=" and ".join(system.name for system in common.systems),
        lead=f"{count(len(common.systems), 'system')}; the reference is {reference}.",
        verdict=verdict,
        findings=findings(evidence),
        legend=legend(evidence.sweep, evidence.noun),
        cases=common.notes,
        comparisons=comparison_table(evidence),
        plots=_plots(evidence, options.folder / "compare"),
        differing=_differing(evidence, dice, options) if options.overlays else None,
        systems=variants_table(evidence),
        labels=targets_table(evidence),
        every_case=_every_case(evidence, dice),
        left_out=_left_out(common) if common.left_out else None,
        notes=_method(evidence),
        files=[Link(name, name) for name in FILES],
    )


def _plots(evidence: Evidence, folder: Path) -> list[Picture]:
    """Draw the differences and the cases."""
    draw_differences(evidence, folder / "differences.png")
    draw_cases(evidence, folder / "cases.png")
    captions = {"differences": "Differences to the reference", "cases": "Every case"}
    plots: list[Picture] = []
    for name, caption in captions.items():
        plots.append(embed(folder / f"{name}.png", caption, WIDTH, caption))
    return plots


def _most_apart(dice: Dice, number: int) -> list[str]:
    """Return the cases whose Dice differs most between the systems, the largest first."""
    apart: dict[str, float] = {}
    for case, values in dice.items():
        known = [value for value in values if np.isfinite(value)]
        if len(known) > 1:
            apart[case] = max(known) - min(known)
    ranked = sorted(apart, key=lambda case: -apart[case])
    return [case for case in ranked if apart[case] > 0][:number]


def _differing(evidence: Evidence, dice: Dice, options: Compare) -> Table | None:
    """Return a row per case that differs most, with Dice and picture by each system."""
    systems: Sequence[System] = evidence.sweep.variants
    digits = metrics_of("scores")["dice"].digits
    columns = [Column("case")]
    for name, short in letters(evidence.sweep).items():
        columns.append(Column(f"Dice, {short}", digits))
        columns.append(Column(labels(evidence.sweep)[name], sortable=False))
    rows: list[list[Cell]] = []
    for case in _most_apart(dice, options.overlays):
        row: list[Cell] = [case]
        for number, (system, value) in enumerate(zip(systems, dice[case], strict=True)):
            drawn = options.folder / "compare" / f"{case.replace('/', '_')}-{number}.png"
            row += [value, _picture(system, case, drawn)]
        rows.append(row)
    caption = "the cases that differ most; truth solid, prediction dashed"
    return Table(caption, columns, rows) if rows else None


def _picture(system: System, case: str, drawn: Path) -> Picture | None:
    """Return the picture of a case by a system: the one that is there, else by its network."""
    alt = f"{case} by {system.name}"
    for source in system.runs.values():
        file = source.folder / "overlays" / f"{case}.png"
        if case in source.cases and file.is_file():
            return embed_overlay(file, alt, SMALL)
    for source in system.runs.values():
        if source.run is None or case not in source.cases:
            continue
        try:
            drawing = draw_case(source.run, case, system.name, drawn)
            return embed_overlay(drawing, alt, SMALL)
        except (SegpipeError, OSError) as error:
            log.warning("%s: %s cannot be drawn: %s", system.name, case, error)
    return None


def _every_case(evidence: Evidence, dice: Dice) -> Table:
    """Return a row per case: Dice by each system, and the differences to the reference."""
    digits = metrics_of("scores")["dice"].digits
    columns = [Column("case")]
    names = letters(evidence.sweep)
    columns += [Column(f"Dice, {short}", digits) for short in names.values()]
    points = metrics_of("scores")["dice"].difference_digits
    for comparison in evidence.comparisons:
        short = names[comparison.variant.name]
        columns.append(Column(f"{short} less {names[evidence.reference.name]}, points", points))
    rows: list[list[Cell]] = []
    for case, values in dice.items():
        differences = [100 * one.per_case.get(case, np.nan) for one in evidence.comparisons]
        rows.append([case, *values, *differences])
    return Table("every case, mean over targets", columns, rows)


def _left_out(common: Common) -> Table:
    rows: list[list[Cell]] = [[case, why] for case, why in common.left_out.items()]
    return Table(count(len(rows), "case"), [Column("case"), Column("why")], rows)
