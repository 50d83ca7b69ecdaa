"""The loss around networks as a profile and, over a plane, as contours and as a surface."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from segpipe.probe.picture_colours import network_colour
from segpipe.reporting.figures import save, show_plain_numbers

LEVELS = 25  # of a contour plot
LOSS = "loss"


def draw_landscapes(surfaces: Mapping[str, np.ndarray], steps: np.ndarray, folder: Path) -> None:
    """Write `profile.png`, and over planes also `contour.png` and `surface.png`.

    Args:
        surfaces: the loss around each network, `(steps,)` or `(steps, steps)`.
        steps: distances along each direction, in lengths of each filter.
        folder: the folder to write to.
    """
    _draw_profile(surfaces, steps, folder / "profile.png")
    if next(iter(surfaces.values())).ndim == 2:
        levels = _levels(surfaces)
        _draw_contours(surfaces, steps, levels, folder / "contour.png")
        _draw_surfaces(surfaces, steps, levels, folder / "surface.png")


def _levels(surfaces: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the levels of all contours, equally spaced in the logarithm of the loss."""
    values = np.stack(list(surfaces.values()))
    lowest = float(values.min())
    return np.geomspace(lowest, max(float(values.max()), 1.01 * lowest), LEVELS)


def _draw_profile(surfaces: Mapping[str, np.ndarray], steps: np.ndarray, picture: Path) -> None:
    """Draw the loss along each direction through the trained weights."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    middle = len(steps) // 2
    for index, (name, surface) in enumerate(surfaces.items()):
        colour = network_colour(index)
        if surface.ndim == 1:
            axes.plot(steps, surface, color=colour, label=name)
        else:
            axes.plot(steps, surface[:, middle], color=colour, label=name)
            second = "... second direction"
            axes.plot(steps, surface[middle], color=colour, linestyle="--", label=second)
    axes.set_yscale("log")
    show_plain_numbers(axes.yaxis)
    axes.set_xlabel("along a random direction, in lengths of each filter")
    axes.set_ylabel(LOSS)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, picture)


def _draw_contours(
    surfaces: Mapping[str, np.ndarray], steps: np.ndarray, levels: np.ndarray, picture: Path
) -> None:
    """Draw the contours of each network's loss, all on one scale."""
    figure = Figure(figsize=(1 + 3.9 * len(surfaces), 4.2), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(surfaces), sharey=True, squeeze=False))
    norm = LogNorm(levels[0], levels[-1])
    for axes, (name, surface) in zip(panels, surfaces.items(), strict=True):
        lines: dict[str, Any] = {"colors": "white", "linewidths": 0.4}
        axes.contourf(steps, steps, surface.T, levels, norm=norm, cmap="viridis")
        axes.contour(steps, steps, surface.T, levels, norm=norm, **lines)
        axes.plot(0, 0, "+", color="white")
        axes.set(title=_in_lines(name), aspect="equal", xlabel="first direction")
    panels[0].set_ylabel("second direction")
    scale = ScalarMappable(norm, "viridis")
    bar = figure.colorbar(scale, ax=list(panels), label=LOSS, shrink=0.85)
    show_plain_numbers(bar.ax.yaxis)
    save(figure, picture)


def _draw_surfaces(
    surfaces: Mapping[str, np.ndarray], steps: np.ndarray, levels: np.ndarray, picture: Path
) -> None:
    """Draw each network's loss as a surface in space, all on one scale."""
    figure = Figure(figsize=(4.4 * len(surfaces), 4.4))
    # automatic layouts do not reserve space for the labels of 3D axes
    figure.subplots_adjust(left=0.01, right=0.94, bottom=0.06, top=0.92, wspace=0.12)
    lowest = float(np.log10(levels[0]))
    highest = float(np.log10(levels[-1]))
    x, y = np.meshgrid(steps, steps, indexing="ij")
    for index, (name, surface) in enumerate(surfaces.items()):
        axes: Any = figure.add_subplot(1, len(surfaces), index + 1, projection="3d")
        axes.plot_surface(x, y, np.log10(surface), cmap="viridis", vmin=lowest, vmax=highest)
        axes.set(title=_in_lines(name), zlim=(lowest, highest), zlabel=f"log10 {LOSS}")
        _label_plane(axes, steps)
    save(figure, picture)


def _in_lines(name: str) -> str:
    """Return the name of a network with a line for each of its settings, as a panel has room."""
    return name.replace(", ", ",\n")


def _label_plane(axes: Axes, steps: np.ndarray) -> None:
    ticks = [float(steps[0]), 0.0, float(steps[-1])]
    axes.set(xticks=ticks, yticks=ticks, xlabel="first direction", ylabel="second direction")
