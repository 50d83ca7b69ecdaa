"""Plots of a run's numbers: curves over its steps, and boxes over its cases."""

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from segpipe.reporting.pictures import COLOURS, colour, save

DASHES = ("-", "--", ":", "-.")
NOTHING = np.empty((2, 0))


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draws loss, learning rate and Dice per label against the step.

    Args:
        metrics: a run's `metrics.csv`: the columns `step`, `loss`, `lr`, `dice/LABEL` and `dice/mean`, each of the last
            four possibly missing; cells are empty where nothing was measured.
        picture: PNG to write.
    """
    columns = _read_columns(metrics)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    _draw_loss(left, columns.get("loss", NOTHING), columns.get("lr", NOTHING))
    _draw_dice(
        right,
        {
            name.removeprefix("dice/"): found
            for name, found in columns.items()
            if name.startswith("dice/")
        },
    )
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    save(figure, picture)


def draw_boxes(values: Mapping[str, Mapping[str, Sequence[float]]], picture: Path) -> None:
    """Draws a box per label over the cases (quartiles, whiskers to 1.5 of their distance), with a point for each case.

    Args:
        values: what is measured -> label -> its value in each case; NaN where it is not known.
        picture: PNG to write.
    """
    labels = max(len(of) for of in values.values())
    figure = Figure(figsize=(11, 2 + 0.34 * max(3, labels)), layout="constrained")
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (measure, of) in zip(panels, values.items(), strict=True):
        known = [np.array(found, float)[np.isfinite(found)] for found in of.values()]
        lines = {"color": "0.25", "linewidth": 1.2}
        axes.boxplot(
            known, orientation="horizontal", widths=0.62, showfliers=False, boxprops=lines, whiskerprops=lines,
            capprops=lines, medianprops={"color": "black", "linewidth": 2},
        )  # fmt: skip
        for place, found in enumerate(known):
            if len(found):
                low, high = np.percentile(found, [25, 75])
                axes.barh(
                    place + 1, high - low, 0.62, low, color=colour(place), alpha=0.3, linewidth=0
                )
            aside = np.random.default_rng(place).uniform(-0.18, 0.18, len(found))
            axes.scatter(
                found,
                place + 1 + aside,
                s=22,
                color=colour(place),
                alpha=0.9,
                linewidths=0,
                zorder=3,
            )
        axes.set_yticks(
            range(1, len(of) + 1), [textwrap.shorten(name, 28, placeholder="…") for name in of]
        )
        axes.set(title=measure, ylim=(len(of) + 0.6, 0.4))
        axes.set_xlim((-0.02, 1.02) if "Dice" in measure else (0, None))
        axes.grid(axis="x", alpha=0.3)
    save(figure, picture)


def _read_columns(metrics: Path) -> dict[str, np.ndarray]:
    """Per column the steps at which it was measured, and its values there, `(2, rows)`."""
    with metrics.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return {
        name: np.array([(float(row["step"]), float(row[name])) for row in rows if row[name]])
        .reshape(-1, 2)
        .T
        for name in reader.fieldnames or []
    }


def _draw_loss(axes: Axes, loss: np.ndarray, rate: np.ndarray) -> None:
    step, value = loss[:, np.isfinite(loss[1])]
    if len(value) < 20:
        axes.plot(step, value, color="black", marker=".")
    else:
        axes.plot(step, value, color="0.6", linewidth=0.8)
        axes.plot(
            step,
            gaussian_filter1d(value, len(value) / 40, mode="nearest"),
            color="black",
            linewidth=1.8,
        )
    axes.set(title="training loss (mean of an epoch)", ylabel="Dice + cross-entropy")
    beside = axes.twinx()
    beside.plot(*rate, color="0.55", linestyle=":", marker="" if rate.shape[1] > 1 else ".")
    beside.set_ylabel("learning rate (dotted)", color="0.4")
    beside.set_ylim(bottom=0)
    beside.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _draw_dice(axes: Axes, columns: dict[str, np.ndarray]) -> None:
    axes.set(
        title="Dice of whole validation scans", ylim=(-0.02, 1.02), yticks=np.arange(0, 1.01, 0.1)
    )
    mean = columns.pop("mean", NOTHING)
    for place, (label, found) in enumerate(columns.items()):
        dashes = DASHES[place // len(COLOURS) % len(DASHES)]
        axes.plot(*found, marker=".", label=label, color=colour(place), linestyle=dashes)
    axes.plot(*mean, marker=".", color="black", linewidth=2.2, label="mean")
    if np.isfinite(mean[1]).any():
        step, best = mean[:, np.nanargmax(mean[1])]
        axes.set_title(f"Dice of whole validation scans (best mean {best:.3f}, step {step:.0f})")
    if mean.size or columns:
        axes.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, ncols=1 + len(columns) // 18
        )
    else:
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color="0.4")
