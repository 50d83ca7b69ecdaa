"""Figures of agreement: volumes against the truth (Bland-Altman), and reliability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segpipe.metrics import Score
from segpipe.reporting.figures import save
from segpipe.reporting.pictures import colour
from segpipe.reporting.plots import PLAIN
from segpipe.units import Units

FEWEST = 3  # cases of a label, from which limits are drawn
WITHIN = 1.96  # standard deviations, that hold 95 % of normal differences
COLUMNS = 4
VOLUMES_CAPTION = (
    "Bland-Altman: a point is a case; the line is the mean difference, dashed lines hold 95 % of "
    "the cases if the differences are normal."
)
Colour = tuple[float, float, float]
MOST = 12  # labels that are drawn


@dataclass(frozen=True)
class Limits:
    """The limits of agreement of two ways to measure (Bland 1986).

    Attributes:
        bias: mean difference.
        low: below which 2.5 % of the differences are expected.
        high: above which 2.5 % are.
    """

    bias: float
    low: float
    high: float


def limits_of(differences: Float[np.ndarray, " cases"]) -> Limits:
    """Return the mean of differences, and 1.96 standard deviations below and above it."""
    bias = float(differences.mean())
    margin = WITHIN * float(differences.std(ddof=1))
    return Limits(bias, bias - margin, bias + margin)


def draw_volumes(scores: Sequence[Score], picture: Path, units: Units) -> bool:
    """Draw the difference of predicted and true volume against their mean, a panel for each label.

    Args:
        scores: the scores of all cases; labels of fewer than `FEWEST` cases are left out.
        picture: PNG to write.
        units: the units of the volumes.

    Returns:
        Whether there was a label to draw.
    """
    panels: dict[str, np.ndarray] = {}
    for score in scores:
        pair = units.of_volume(score.volume_ml), units.of_volume(score.truth_ml)
        if any(pair):
            known = panels.get(score.label, np.empty((0, 2)))
            panels[score.label] = np.vstack([known, pair])
    drawn = [label for label, pairs in panels.items() if len(pairs) >= FEWEST][:MOST]
    if not drawn:
        return False
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(11, 0.6 + 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(drawn) :]:
        axes.set_visible(False)
    for number, (axes, label) in enumerate(zip(grid, drawn, strict=False)):
        _draw_panel(axes, panels[label], colour(number))
        axes.set(title=label, xlabel=f"mean of both, {units.volume}")
    grid[0].set_ylabel(f"predicted - true, {units.volume}")
    save(figure, picture)
    return True


def _draw_panel(axes: Axes, pairs: Float[np.ndarray, "cases 2"], fill: Colour) -> None:
    differences = pairs[:, 0] - pairs[:, 1]
    limits = limits_of(differences)
    axes.scatter(pairs.mean(axis=1), differences, s=22, color=fill, linewidths=0)
    axes.axhline(0, color="0.75", linewidth=0.8)
    for value, dashes in ((limits.bias, "-"), (limits.low, "--"), (limits.high, "--")):
        axes.axhline(value, color="0.25", linestyle=dashes, linewidth=1.1)
        text = {"xy": (1.01, value), "xycoords": ("axes fraction", "data"), "ha": "left"}
        axes.annotate(f"{float(f'{value:.3g}'):+,g}", **text, va="center", fontsize=8, color="0.25")
    axes.margins(y=0.15)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)


def draw_reliability(calibration: Mapping[str, Any], picture: Path) -> None:
    """Draw how often predictions are right against how sure they are.

    Args:
        calibration: as `postprocess.json` holds it.
        picture: PNG to write.
    """
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=0.8)
    curves = (("before", "as the network has them"), ("after", "with a temperature"))
    for number, (name, title) in enumerate(curves):
        bins = calibration[name]
        label = f"{title}: ECE {bins['ece']:.3f}"
        axes.plot(bins["confidence"], bins["right"], marker="o", color=colour(number), label=label)
    axes.set(xlabel="probability of what is predicted", ylabel="share that is right")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    save(figure, picture)
