"""The Dice of networks against the strength of a change, and how the changes look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from segpipe.data.degradation import CHANGES
from segpipe.probe.picture_colours import network_colour
from segpipe.reporting.figures import save
from segpipe.units import Units


@dataclass(frozen=True)
class Curves:
    """The mean Dice of networks on changed scans.

    Attributes:
        networks: their names.
        strengths: the strengths of each change.
        dice: the Dice of each change `(networks, 1 + strengths)`; the first column is of clean
            scans.
        units: the units of the scans.
    """

    networks: list[str]
    strengths: dict[str, list[float]]
    dice: dict[str, Float[np.ndarray, "networks columns"]]
    units: Units


def draw_robustness(curves: Curves, picture: Path) -> None:
    """Draw a panel for each change with a line for each network.

    Args:
        curves: what to draw.
        picture: PNG to write.
    """
    count = len(curves.dice)
    figure = Figure(figsize=(2 + 2.9 * count, 3.8), layout="constrained")
    panels = np.ravel(figure.subplots(1, count, sharey=True, squeeze=False))
    for axes, (change, dice) in zip(panels, curves.dice.items(), strict=True):
        strengths = [CHANGES[change].unchanged, *curves.strengths[change]]
        for index, network in enumerate(curves.networks):
            colour = network_colour(index)
            axes.plot(strengths, dice[index], marker=".", color=colour, label=network)
        axes.set_xlabel(curves.units.in_text(CHANGES[change].label))
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="mean Dice", ylim=(0, 1.02))
    panels[0].legend(fontsize=8)
    save(figure, picture)


def draw_changes(
    rows: Mapping[str, Sequence[tuple[str, Float[np.ndarray, "x y"]]]], picture: Path
) -> None:
    """Draw one slice under each change, a row each, stronger to the right.

    Args:
        rows: the rows of each change, the strengths and slices, the unchanged one first.
        picture: PNG to write.
    """
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(1.9 * columns, 2.1 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for row_panels, (change, slices) in zip(panels, rows.items(), strict=True):
        low, high = np.percentile(slices[0][1], [0.5, 99.5])
        for axes, (strength, image) in zip(row_panels, slices, strict=False):
            upright = image.T[::-1, ::-1]
            axes.imshow(upright, cmap="gray", vmin=low, vmax=high, interpolation="auto")
            axes.set_title(f"{change.removesuffix('_mm')} {strength}", fontsize=8)
    save(figure, picture)
