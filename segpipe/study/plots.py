"""Plots of a study: differences with their intervals, cases, and curves with a band over runs."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segpipe.reporting.pictures import COLOURS, save
from segpipe.study.evidence import METRICS, TESTED, Evidence
from segpipe.study.sweep import Variant

ORDER = (4, 5, 2, 0, 6, 1, 3)  # of the palette: the first ones differ most on white


def draw_differences(evidence: Evidence, picture: Path) -> None:
    """What each variant has more than the reference, in points of Dice and of NSD, with 95 % intervals."""
    comparisons = evidence.comparisons
    figure = Figure(figsize=(10, 1.6 + 0.45 * len(comparisons)), layout="constrained")
    for axes, metric in zip(
        figure.subplots(1, len(TESTED), sharey=True, squeeze=False)[0], TESTED, strict=True
    ):
        for place, one in enumerate(comparisons):
            found = one.differences[metric].interval
            axes.plot(
                [100 * found.low, 100 * found.high], [place, place], color="black", linewidth=1.6
            )
            axes.plot(100 * found.mean, place, "o", color=_colour(evidence, one.variant))
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set_yticks(
            range(len(comparisons)), [one.variant.name for one in comparisons], fontsize=8
        )
        axes.set(
            ylim=(len(comparisons) - 0.5, -0.5),
            xlabel=f"{METRICS[metric]}, points more than the reference",
        )
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(
        f"against {evidence.reference.name}; bars: 95 % intervals over cases", fontsize=10
    )
    save(figure, picture)


def draw_cases(evidence: Evidence, picture: Path) -> None:
    """The difference of Dice of every case, from the one that loses most to the one that gains most."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for one in evidence.comparisons:
        found = np.sort([100 * value for value in one.per_case.values() if np.isfinite(value)])
        share = (np.arange(len(found)) + 0.5) / len(found)
        axes.plot(
            share,
            found,
            ".-",
            linewidth=0.8,
            color=_colour(evidence, one.variant),
            label=one.variant.name,
        )
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set(
        xlabel="share of the cases", ylabel="Dice, points more than the reference", xlim=(0, 1)
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(
        f"every case against {evidence.reference.name}, mean over runs, sorted", fontsize=10
    )
    save(figure, picture)


def draw_bands(variants: Sequence[Variant], picture: Path) -> None:
    """Training loss and Dice of whole scans against the step: mean over runs, in a band from lowest to highest."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, variant in enumerate(variants):
        colour = COLOURS[ORDER[number % len(ORDER)]]
        _band(left, variant, "loss", colour)
        _band(right, variant, "dice/mean", colour)
    left.set(title="training loss (mean of an epoch)", ylabel="Dice loss + cross-entropy")
    right.set(title="Dice of whole validation scans")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    save(figure, picture)


def _band(axes: Axes, variant: Variant, column: str, colour: str) -> None:
    runs = [_column(run.folder / "metrics.csv", column) for run in variant.runs.values()]
    shortest = min(len(run) for run in runs)
    if not shortest:
        return
    steps = np.array([run[:shortest, 0] for run in runs]).mean(0)
    found = np.array([run[:shortest, 1] for run in runs])
    axes.plot(
        steps, found.mean(0), color=colour, label=variant.name, marker="" if shortest > 12 else "."
    )
    axes.fill_between(steps, found.min(0), found.max(0), color=colour, alpha=0.2, linewidth=0)


def _column(metrics: Path, name: str) -> np.ndarray:
    with metrics.open(newline="") as file:
        rows = [
            (float(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)
        ]
    return np.array(rows).reshape(-1, 2)


def _colour(evidence: Evidence, variant: Variant) -> str:
    names = [one.name for one in evidence.sweep.variants]
    return COLOURS[ORDER[names.index(variant.name) % len(ORDER)]]
