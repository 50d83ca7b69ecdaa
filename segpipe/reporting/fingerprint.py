"""What a run was trained on, as numbers and as a picture: grids, volumes of labels, intensities."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segpipe.axes import AXES
from segpipe.planning.fingerprint import Facts, Intensities
from segpipe.reporting.figures import save, show_plain_numbers
from segpipe.reporting.pictures import COLOURS
from segpipe.text import count
from segpipe.units import Units

PARTS = {"train": (COLOURS[4], "o", "training"), "val": (COLOURS[5], "^", "validation")}


def draw_fingerprint(facts: Facts, picture: Path, units: Units) -> None:
    """Draw spacing and size of each case, the volumes of its labels, and labelled intensities.

    Args:
        facts: the facts of the run's cases.
        picture: PNG to write.
        units: the units of the cases.
    """
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    (spacing, size), (volume, intensity) = figure.subplots(2, 2)
    _draw_edges(spacing, facts, "spacing_mm")
    spacing.set(title=f"voxel size, {units.length}")
    _draw_edges(size, facts, "shape")
    size.set(title="size, voxels")
    _draw_volumes(volume, facts, units)
    _draw_intensities(intensity, facts.intensities)
    _legend(figure, facts)
    save(figure, picture)


def _draw_edges(axes: Axes, facts: Facts, attribute: str) -> None:
    """Draw an attribute of each case that has a value for each axis of space."""
    columns: dict[str, list[float]] = {}
    for axis, name in enumerate(AXES):
        columns[name] = [float(getattr(case, attribute)[axis]) for case in facts.cases]
    _strips(axes, facts, columns)


def _draw_volumes(axes: Axes, facts: Facts, units: Units) -> None:
    """Draw the volume of each label in each case, on a logarithmic scale if any is there."""
    columns: dict[str, list[float]] = {}
    for label in facts.cases[0].volumes_ml:
        columns[label] = _volumes(facts, label, units)
    _strips(axes, facts, columns)
    if np.greater(list(columns.values()), 0).any():
        axes.set_yscale("log")
        show_plain_numbers(axes.yaxis)
    axes.set(title=units.in_text("volume of each label in a case, mL (cases that have it)"))
    axes.tick_params(axis="x", rotation=0 if len(columns) < 8 else 90)


def _draw_intensities(axes: Axes, channels: Sequence[Intensities]) -> None:
    """Draw a histogram of the labelled voxels for each channel."""
    for place, channel in enumerate(channels):
        heights = np.array(channel.counts) / max(1, sum(channel.counts))
        colour = COLOURS[(4 + place) % 7]
        axes.stairs(heights, channel.edges, color=colour, label=channel.channel, linewidth=1.6)
    axes.set(title="intensities of labelled voxels, training cases", ylabel="share of voxels")
    axes.legend(frameon=False, fontsize=8)


def _volumes(facts: Facts, label: str, units: Units) -> list[float]:
    """Return the volume of a label in each case; NaN where a case lacks it."""
    return [units.of_volume(one.volumes_ml[label]) or np.nan for one in facts.cases]


def _strips(axes: Axes, facts: Facts, columns: dict[str, list[float]]) -> None:
    """Draw a column of points for each name: one per case, jittered so that all are visible."""
    aside = np.random.default_rng(0).uniform(-0.28, 0.28, len(facts.cases))
    for part, (colour, marker, _) in PARTS.items():
        own = np.array([one.part == part for one in facts.cases], bool)
        style = {
            "color": colour,
            "marker": marker,
            "linestyle": "",
            "markersize": 4,
            "alpha": 0.6,
            "markeredgewidth": 0,
        }
        for place, values in enumerate(columns.values()):
            axes.plot(place + aside[own], np.array(values, float)[own], **style)
    axes.set_xticks(range(len(columns)), list(columns), fontsize=9)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.grid(axis="y", alpha=0.3)


def _legend(figure: Figure, facts: Facts) -> None:
    counts = Counter(one.part for one in facts.cases)
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle="",
            label=count(counts[part], f"{word} case"),
        )
        for part, (colour, marker, word) in PARTS.items()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
