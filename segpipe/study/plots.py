"""Plots of a study: differences with their intervals, single cases, and curves with bands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segpipe.metrics import Metric
from segpipe.reporting.figures import save
from segpipe.reporting.pictures import COLOURS
from segpipe.reporting.plots import PLAIN
from segpipe.study.evidence import Evidence
from segpipe.study.legend import labels
from segpipe.study.sweep import Sweep, SweepRun, Variant

ORDER = (4, 5, 2, 0, 6, 1, 3)  # of the palette: the first ones differ most on white


def draw_differences(evidence: Evidence, picture: Path) -> None:
    """Draw each variant minus the reference: a panel per tested metric, with 95 % intervals."""
    metrics = evidence.tested
    height = 1.7 + 0.4 * len(evidence.comparisons)
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, (name, metric) in zip(panels, metrics.items(), strict=True):
        _draw_panel(axes, evidence, name, metric)
    reference = labels(evidence.sweep)[evidence.reference.name]
    figure.suptitle(f"compared with {reference}; bars: 95 % intervals over cases", fontsize=10)
    save(figure, picture)


def _draw_panel(axes: Axes, evidence: Evidence, name: str, metric: Metric) -> None:
    for row, comparison in enumerate(evidence.comparisons):
        interval = comparison.differences[name].interval
        ends = np.array([interval.low, interval.high]) * metric.difference_scale
        mean = interval.mean * metric.difference_scale
        axes.plot(ends, [row, row], color="black", linewidth=1.6)
        axes.plot(mean, row, "o", color=_colour(evidence, comparison.variant))
    names = [labels(evidence.sweep)[one.variant.name] for one in evidence.comparisons]
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    label = f"{metric.difference_heading} more than\nthe reference ({metric.better} is better)"
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=evidence.units.in_text(label))
    axes.grid(axis="x", alpha=0.3)


def draw_cases(evidence: Evidence, picture: Path) -> None:
    """Draw the difference of Dice of every case, sorted from the largest loss to the largest gain.

    The value is the mean over runs, in points.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for comparison in evidence.comparisons:
        differences = 100 * np.sort(list(comparison.per_case.values()))
        differences = differences[np.isfinite(differences)]
        share = (np.arange(len(differences)) + 0.5) / len(differences)
        colour = _colour(evidence, comparison.variant)
        name = labels(evidence.sweep)[comparison.variant.name]
        axes.plot(share, differences, ".-", linewidth=0.8, color=colour, label=name)
    axes.axhline(0, color="0.5", linewidth=0.8)
    ylabel = "Dice, points more than the reference"
    axes.set(xlabel="share of the cases", ylabel=ylabel, xlim=(0, 1))
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    reference = labels(evidence.sweep)[evidence.reference.name]
    axes.set_title(f"each case, compared with {reference}; mean over runs, sorted", fontsize=10)
    save(figure, picture)


def draw_bands(sweep: Sweep[SweepRun], picture: Path) -> None:
    """Draw training loss and Dice of whole scans against the step.

    A line is the mean over the runs of a variant, its band reaches from the lowest to the highest.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, variant in enumerate(sweep.variants):
        line = {"color": COLOURS[ORDER[number % len(ORDER)]], "label": labels(sweep)[variant.name]}
        _draw_band(left, variant, "loss", line)
        _draw_band(right, variant, "dice/mean", line)
    left.set(title="training loss (mean of an epoch)", ylabel=_loss_name(sweep.variants))
    right.set(title="Dice of whole validation scans")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(PLAIN)
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside lower center")
    save(figure, picture)


def _loss_name(variants: Sequence[Variant[SweepRun]]) -> str:
    """Return the name of the loss where all variants have the same one."""
    names = {variant.first_run.loss_name for variant in variants}
    return names.pop() if len(names) == 1 else "loss"


def _draw_band(axes: Axes, variant: Variant[SweepRun], column: str, line: dict[str, Any]) -> None:
    """Draw a column of `metrics.csv` over the steps, in a colour and with a label."""
    curves = [_curve(run, column) for run in variant.runs.values()]
    epochs = min(map(len, curves))
    if not epochs:
        return
    stacked = np.array([curve[:epochs] for curve in curves])
    steps = stacked[..., 0].mean(0)
    measured = stacked[..., 1]
    marker = "" if epochs > 12 else "."
    axes.plot(steps, measured.mean(0), marker=marker, **line)
    low = measured.min(0)
    axes.fill_between(steps, low, measured.max(0), color=line["color"], alpha=0.2, linewidth=0)


def _curve(run: SweepRun, column: str) -> Float[np.ndarray, "epochs 2"]:
    """Return the steps after which a column of `metrics.csv` was measured, and its values."""
    points = [(row["step"], row[column]) for row in run.metrics if column in row]
    return np.array(points, dtype=float).reshape(-1, 2)


def _colour(evidence: Evidence, variant: Variant) -> str:
    names = [other.name for other in evidence.sweep.variants]
    return COLOURS[ORDER[names.index(variant.name) % len(ORDER)]]
