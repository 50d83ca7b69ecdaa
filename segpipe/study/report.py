"""The evidence of a sweep as files: `study.html` to read, `study.md` for papers, `study.csv`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.config.page import ComparisonOptions
from segpipe.files import write_json, write_table, write_text
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
from segpipe.study.evidence import MAIN, Evidence, analyse
from segpipe.study.findings import findings
from segpipe.study.hard_cases import draw_hard_cases
from segpipe.study.legend import labels, legend
from segpipe.study.plots import draw_bands, draw_cases, draw_differences
from segpipe.study.sweep import Sweep, SweepRun, find_reference, read_sweep
from segpipe.study.tables import (
    comparison_table,
    costs_table,
    csv_table,
    json_values,
    latex_tables,
    markdown_table,
    problems_table,
    targets_table,
    variants_table,
)
from segpipe.terminal import show_next, show_table
from segpipe.text import count, decimal
from segpipe.verdict import Judgement

log = logging.getLogger("segpipe")
FILES = ("study.json", "study.csv", "study.md", "study.tex")
WIDTH = 1100  # pixels of a picture inside the page
SMALL = 560  # likewise, of a picture inside a table
POLICY = (
    "Metrics are means over the targets of means over whole validation scans, in their own "
    "geometry; ± is the standard deviation over runs, intervals are 95 % bootstrap intervals over "
    "cases (BCa). A target that neither mask has is not counted. One that only one of them has is "
    "a miss or a false alarm: Dice, IoU and NSD are 0, and distances are the image's diagonal."
)
TESTS = (
    "Differences are paired: each case under the variant less the same case under the reference, "
    "averaged over runs of the same seed and fold. p is that of Wilcoxon's signed-rank test over "
    "cases (zeros by Pratt), after Holm's correction over all tests of this page; the effect is "
    "the rank-biserial correlation, from -1 to 1."
)
COSTS = "Memory is that of a training step, by the memory model; seconds are medians over steps."


@dataclass(frozen=True)
class StudyPage(Page):
    """The content of `study.html`.

    Attributes:
        verdict: which variant is better.
        findings: sentences.
        legend: what each letter stands for.
        variants: all variants, the mean over targets.
        costs: the costs of all variants; None where they are not known.
        comparisons: with the reference; None where there is none.
        labels: a row per target and variant.
        problems: runs that are not in it; None where there are none.
        plots: differences, cases, curves.
        worst: the worst cases by each variant; None where nothing could be drawn.
        networks: a drawing of each variant's.
        notes: how the figures were made.
        files: beside the page.
    """

    verdict: Judgement
    findings: Sequence[str]
    legend: Table
    variants: Table
    costs: Table | None
    comparisons: Table | None
    labels: Table
    problems: Table | None
    plots: Sequence[Picture]
    worst: Table | None
    networks: Sequence[Picture]
    notes: Sequence[str]
    files: Sequence[Link]


def report(folder: Path, options: ComparisonOptions) -> Evidence | None:
    """Write the study of a sweep into its folder, and print the findings.

    Args:
        folder: the folder of the sweep.
        options: reference and number of worst cases to draw.

    Returns:
        The evidence; None where none of the runs is done.

    Raises:
        ConfigError: if the requested reference is not among the variants.
    """
    return write_study(read_sweep(folder), folder, options)


def write_study(
    sweep: Sweep[SweepRun], folder: Path, options: ComparisonOptions
) -> Evidence | None:
    """Write `study.html`, `.json`, `.md`, `.tex`, `.csv` and `study/*.png`; print the findings.

    Args:
        sweep: the runs.
        folder: to write to.
        options: reference and number of worst cases to draw.

    Returns:
        The evidence; None where none of the runs is done.

    Raises:
        ConfigError: if the requested reference is not among the variants.
    """
    for run, problem in sweep.problems.items():
        log.warning("%s: %s", sweep.folder / run, problem)
    if not sweep.variants:
        log.warning("%s: no run is done, so there is nothing to compare", folder)
        return None
    evidence = analyse(sweep, find_reference(sweep, options.reference))
    write_table(folder / "study.csv", *csv_table(evidence))
    verdict = answer(evidence)
    write_json(folder / "study.json", plain(json_values(evidence, verdict)))
    write_text(folder / "study.md", _markdown(evidence, verdict))
    write_latex(folder / "study.tex", latex_tables(evidence))
    write_page(folder / "study.html", "study.html", _page(evidence, verdict, options, folder))
    show_study(evidence)
    files = {"report": "study.html", "for a paper": "study.md", "table": "study.csv"}
    show_next([(purpose, folder / name) for purpose, name in files.items()])
    show_verdict(verdict)
    return evidence


def _page(
    evidence: Evidence, verdict: Judgement, options: ComparisonOptions, folder: Path
) -> StudyPage:
    sweep = evidence.sweep
    pictures = folder / "study"
    runs = sum(len(variant.runs) for variant in sweep.variants)
    size = f"{count(len(sweep.variants), 'variant')}, {count(runs, 'run')}"
    reference = labels(sweep)[evidence.reference.name]
    return StudyPage(
        title=f"Study {sweep.folder.resolve().parent.name}",
        lead=f"{size}; the reference is {reference}.",
        verdict=verdict,
        findings=findings(evidence),
        legend=legend(sweep, evidence.noun),
        variants=variants_table(evidence),
        costs=costs_table(evidence),
        comparisons=comparison_table(evidence) if evidence.comparisons else None,
        labels=targets_table(evidence),
        problems=problems_table(evidence.problems) if evidence.problems else None,
        plots=_plots(evidence, pictures),
        worst=_worst(sweep, options.overlays, pictures) if options.overlays else None,
        networks=_networks(sweep),
        notes=[POLICY, TESTS, COSTS],
        files=[Link(name, name) for name in FILES],
    )


def _plots(evidence: Evidence, folder: Path) -> list[Picture]:
    """Draw the plots of a study into a folder, and return them as parts of the page."""
    captions: dict[str, str] = {}
    if evidence.comparisons:
        draw_differences(evidence, folder / "differences.png")
        draw_cases(evidence, folder / "cases.png")
        captions["differences"] = "Differences to the reference"
        captions["cases"] = "Every case"
    draw_bands(evidence.sweep, folder / "curves.png")
    captions["curves"] = "Training: mean over runs, and a band from the lowest to the highest run"
    plots: list[Picture] = []
    for name, caption in captions.items():
        plots.append(embed(folder / f"{name}.png", caption, WIDTH, caption))
    return plots


def _networks(sweep: Sweep[SweepRun]) -> list[Picture]:
    """Return the drawing of each variant's network, where the run still has it."""
    drawings: list[Picture] = []
    for variant in sweep.variants:
        file = variant.first_run.folder / "network.png"
        if file.is_file():
            label = labels(sweep)[variant.name]
            drawings.append(embed(file, f"network of {label}", WIDTH, label))
    return drawings


def _worst(sweep: Sweep[SweepRun], number: int, folder: Path) -> Table | None:
    """Return a row per worst case with a picture by each variant; None if none can be drawn."""
    drawn = draw_hard_cases(sweep, number, folder)
    if not drawn:
        return None
    columns = [Column("case")]
    names = labels(sweep)
    columns += [Column(names[variant.name], sortable=False) for variant in sweep.variants]
    rows: list[list[Cell]] = []
    for case, pictures in drawn.items():
        row: list[Cell] = [case]
        for variant in sweep.variants:
            file = pictures.get(variant.name)
            alt = f"{case} by {names[variant.name]}"
            row.append(embed_overlay(file, alt, SMALL) if file else None)
        rows.append(row)
    caption = "the cases with the lowest Dice over all runs, by one run of each variant"
    return Table(caption, columns, rows)


def _markdown(evidence: Evidence, verdict: Judgement) -> str:
    variants = count(len(evidence.sweep.variants), "variant")
    lines = [f"# {variants}, compared with {evidence.reference.name}", ""]
    lines += [f"**{verdict.sentence}**", ""]
    lines += [f"- {line}" for line in [*findings(evidence), *verdict.advice]]
    lines += ["", *markdown_table(legend(evidence.sweep, evidence.noun))]
    lines += ["", *markdown_table(variants_table(evidence))]
    costs = costs_table(evidence)
    lines += ["", *markdown_table(costs)] if costs is not None else []
    if evidence.comparisons:
        lines += ["", *markdown_table(comparison_table(evidence))]
    lines += ["", POLICY, "", TESTS]
    if evidence.problems:
        lines += ["", "Not compared:", ""]
        lines += [f"- run {run}: {why}" for run, why in evidence.problems.items()]
    return "\n".join(lines) + "\n"


def show_study(evidence: Evidence) -> None:
    """Print the variants and the findings."""
    metrics = {name: metric for name, metric in evidence.metrics.items() if metric.summary}
    headings = [evidence.units.in_text(metric.heading) for metric in metrics.values()]
    names = labels(evidence.sweep)
    rows: list[list[str]] = []
    for score in evidence.mean_scores:
        row = [names[score.variant], str(score.runs)]
        spread = score.spread[MAIN]
        row.append(decimal(spread, metrics[MAIN].digits))
        for name, metric in metrics.items():
            row.append(decimal(score.metrics[name].mean, metric.digits))
        rows.append(row)
    noun = evidence.noun
    show_table(f"{noun}s", [noun, "runs", "± Dice", *headings], rows)
    for finding in findings(evidence):
        log.info("%s", finding)
