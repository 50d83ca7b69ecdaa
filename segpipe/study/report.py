"""A sweep's evidence as files: `study.html` for a person, `study.md` for a paper, `study.csv` for a program."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.config.train import ComparisonOptions
from segpipe.files import write_rows, write_text
from segpipe.reporting.page import (
    NOT_KNOWN,
    Cell,
    Column,
    Link,
    Page,
    Picture,
    Table,
    embed,
    write_page,
)
from segpipe.study.evidence import ALL, Evidence, analyse, sentence
from segpipe.study.hard_cases import draw_hard_cases
from segpipe.study.plots import draw_bands, draw_cases, draw_differences
from segpipe.study.sweep import Sweep, find_reference, read_sweep
from segpipe.study.tables import (
    StudyRow,
    comparison_table,
    csv_rows,
    markdown_table,
    problems_table,
    targets_table,
    variants_table,
)
from segpipe.terminal import show_next, show_table

log = logging.getLogger("segpipe")
WIDTH = 1100  # pixels of a picture inside the page
SMALL = 560
POLICY = (
    "Dice, IoU, HD95 and NSD are means over the targets of means over whole validation scans, in their own geometry; "
    "± is the standard deviation over runs, brackets are 95 % bootstrap intervals over cases (BCa). A target that "
    "neither mask has is not counted; one that only one of them has scores Dice, IoU and NSD 0 and the image's "
    "diagonal as HD95, and is a miss or a false alarm."
)
TESTS = (
    "Differences are paired: each case under the variant less the same case under the reference, averaged over runs of "
    "the same seed and fold. p is of Wilcoxon's signed-rank test over cases (zeros by Pratt), after Holm's correction "
    "over all tests of this page; the effect is the rank-biserial correlation, from -1 to 1."
)


@dataclass(frozen=True)
class StudyPage(Page):
    """What `study.html` shows.

    Attributes:
        findings: sentences.
        cautions: what cannot be told from so few cases or runs.
        variants: all variants, the mean over targets.
        comparisons: with the reference; None where there is none.
        labels: per target.
        problems: runs that are not in it; None where there are none.
        plots: differences, cases, curves.
        worst: the worst cases by each variant; None where nothing could be drawn.
        networks: a drawing of each variant's.
        notes: how the figures were made.
        files: beside the page.
    """

    findings: Sequence[str]
    cautions: Sequence[str]
    variants: Table
    comparisons: Table | None
    labels: Table
    problems: Table | None
    plots: Sequence[Picture]
    worst: Table | None
    networks: Sequence[Picture]
    notes: Sequence[str]
    files: Sequence[Link]


def report(folder: Path, options: ComparisonOptions) -> Evidence | None:
    """Writes `study.html`, `study.md`, `study.csv` and `study/*.png` into a sweep's folder, and prints the findings.

    Returns:
        What the sweep says; None where none of its runs is done.

    Raises:
        ConfigError: if the reference that is asked for is not there.
    """
    sweep = read_sweep(folder)
    for run, problem in sweep.problems.items():
        log.warning("%s/%s: %s", folder, run, problem)
    if not sweep.variants:
        log.warning("%s: no run is done, so there is nothing to compare", folder)
        return None
    evidence = analyse(sweep, find_reference(sweep, options.reference))
    write_rows(folder / "study.csv", csv_rows(evidence), StudyRow)
    write_text(folder / "study.md", _markdown(evidence))
    write_page(folder / "study.html", "study.html", _page(evidence, options, folder))
    _show(evidence)
    show_next(
        [
            ("report", folder / "study.html"),
            ("for a paper", folder / "study.md"),
            ("table", folder / "study.csv"),
        ]
    )
    return evidence


def _page(evidence: Evidence, options: ComparisonOptions, folder: Path) -> StudyPage:
    sweep, pictures = evidence.sweep, folder / "study"
    plots = {"curves": "Training: mean over runs, and a band from the lowest to the highest run"}
    draw_bands(sweep.variants, pictures / "curves.png")
    if evidence.comparisons:
        plots = {"differences": "Differences to the reference", "cases": "Every case"} | plots
        draw_differences(evidence, pictures / "differences.png")
        draw_cases(evidence, pictures / "cases.png")
    first = [(variant, next(iter(variant.runs.values())).folder) for variant in sweep.variants]
    runs = sum(len(variant.runs) for variant in sweep.variants)
    return StudyPage(
        title=f"Study {folder.resolve().parent.name}",
        lead=f"{len(sweep.variants)} variants, {runs} runs; compared with {evidence.reference.name}.",
        findings=_findings(evidence),
        cautions=_cautions(evidence),
        variants=variants_table(evidence),
        comparisons=comparison_table(evidence.comparisons) if evidence.comparisons else None,
        labels=targets_table(evidence.variant_scores),
        problems=problems_table(evidence.problems) if evidence.problems else None,
        plots=[
            embed(pictures / f"{name}.png", caption, WIDTH, caption)
            for name, caption in plots.items()
        ],
        worst=_worst(sweep, options.overlays, pictures) if options.overlays else None,
        networks=[
            embed(own / "network.png", f"network of {variant.name}", WIDTH, variant.name)
            for variant, own in first
        ],
        notes=[
            POLICY,
            TESTS,
            "Memory is that of a training step, by the memory model; seconds are medians over steps.",
        ],
        files=[Link(name, name) for name in ("study.csv", "study.md")],
    )


def _findings(evidence: Evidence) -> list[str]:
    return [sentence(one, evidence.reference) for one in evidence.comparisons]


def _cautions(evidence: Evidence) -> list[str]:
    return list(dict.fromkeys(one.caution for one in evidence.comparisons if one.caution))


def _worst(sweep: Sweep, count: int, folder: Path) -> Table | None:
    drawn = draw_hard_cases(sweep.variants, count, folder)
    if not drawn:
        return None
    names = [variant.name for variant in sweep.variants]
    rows: list[list[Cell]] = [
        [
            case,
            *(
                embed(of[name], f"{case} by {name}", SMALL) if name in of else None
                for name in names
            ),
        ]
        for case, of in drawn.items()
    ]
    columns = [Column("case"), *(Column(name, sortable=False) for name in names)]
    return Table(
        "the cases with the lowest Dice over all runs, by one run of each variant", columns, rows
    )


def _markdown(evidence: Evidence) -> str:
    parts = [
        f"# {len(evidence.sweep.variants)} variants, compared with {evidence.reference.name}",
        "",
    ]
    parts += [f"- {line}" for line in _findings(evidence)]
    parts += [f"- Caution: {line}." for line in _cautions(evidence)]
    for table in (
        variants_table(evidence),
        comparison_table(evidence.comparisons) if evidence.comparisons else None,
    ):
        parts += ["", *markdown_table(table)] if table else []
    parts += ["", POLICY, "", TESTS]
    parts += ["", "Not compared:", ""] if evidence.problems else []
    parts += [f"- run {run}: {why}" for run, why in evidence.problems.items()]
    return "\n".join(parts) + "\n"


def _show(evidence: Evidence) -> None:
    rows = [
        [one.variant, str(one.runs), f"{one.metrics['dice'].mean:.4f}"]
        + [f"{one.spread['dice']:.4f}" if one.runs > 1 else NOT_KNOWN]
        + [
            f"{one.metrics[metric].mean:.{digits}f}"
            for metric, digits in (("hd95_mm", 2), ("nsd", 4))
        ]
        for one in evidence.variant_scores
        if one.label == ALL
    ]
    show_table("variants", ["variant", "runs", "Dice", "± runs", "HD95 mm", "NSD 1 mm"], rows)
    for line in [*_findings(evidence), *(f"Caution: {line}." for line in _cautions(evidence))]:
        log.info("%s", line)
