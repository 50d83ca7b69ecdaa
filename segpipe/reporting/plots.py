"""Plots of a run's numbers: curves over its steps, and boxes over its cases."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from segpipe.files import read_table
from segpipe.reporting.figures import save
from segpipe.reporting.pictures import COLOURS, colour

DASHES = ("-", "--", ":", "-.")
NOT_MEASURED = np.empty((2, 0))
BOX_HEIGHT = 0.62  # of the distance between two labels
MANY_EPOCHS = 20  # from here on, the loss is drawn smoothed too
TRAINING = "training, mean of an epoch"
VALIDATION = "validation, fixed patches without augmentation"
VALIDATION_COLOUR = COLOURS[5]
DICE_TITLE = "Dice of whole validation scans"
PLAIN = "{x:,g}"  # numbers of an axis as people write them, with no factor at its end
ABOVE: dict[str, Any] = {"alpha": 0.9, "zorder": 3}  # of the box
Curve = Float[np.ndarray, "2 _points"]  # steps, and the values after them


@dataclass(frozen=True)
class BoxPanel:
    """One metric in a plot of boxes.

    Attributes:
        title: the title of the metric, with its unit.
        values: for each label the value in each case; NaN where it is not known.
        is_share: whether all values lie between 0 and 1.
        hollow: for each label which of its values are drawn as rings; none of those not named.
    """

    title: str
    values: Mapping[str, Sequence[float]]
    is_share: bool
    hollow: Mapping[str, Sequence[bool]] = field(default_factory=dict)


def draw_curves(metrics: Path, picture: Path, loss_name: str = "loss") -> None:
    """Draw loss, learning rate and Dice per label against the step.

    Args:
        metrics: `metrics.csv` of a run, with the column `step`. The columns `loss`, `val_loss`,
            `lr`, `dice/LABEL` and `dice/mean` may be missing; cells are empty where nothing was
            measured.
        picture: PNG to write.
        loss_name: label of the loss axis.
    """
    columns = _read_curves(metrics)
    dice: dict[str, Curve] = {}
    for name, curve in columns.items():
        if name.startswith("dice/"):
            dice[name.removeprefix("dice/")] = curve
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    validated = columns.get("val_loss", NOT_MEASURED)
    _draw_loss(left, columns.get("loss", NOT_MEASURED), validated, loss_name)
    _draw_learning_rate(left, columns.get("lr", NOT_MEASURED))
    _draw_dice(right, dice)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(PLAIN)
        axes.grid(alpha=0.3)
    save(figure, picture)


def draw_boxes(panels: Sequence[BoxPanel], picture: Path) -> None:
    """Draw a box per label over the cases, with a point for each case.

    Boxes reach from the first to the third quartile, whiskers to 1.5 times that distance.

    Args:
        panels: one per metric, all of the same labels.
        picture: PNG to write.
    """
    labels = max(len(panel.values) for panel in panels)
    figure = Figure(figsize=(11, 2 + 0.34 * max(3, labels)), layout="constrained")
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(columns, panels, strict=True):
        _draw_panel(axes, panel)
    save(figure, picture)


def _draw_panel(axes: Axes, panel: BoxPanel) -> None:
    known: list[np.ndarray] = []
    hollow: list[np.ndarray] = []
    for label, values in panel.values.items():
        measured = np.asarray(values, dtype=float)
        is_known = np.isfinite(measured)
        known.append(measured[is_known])
        hollow.append(np.array(panel.hollow.get(label, [False] * len(measured)), bool)[is_known])
    lines = {"color": "0.25", "linewidth": 1.2}
    axes.boxplot(
        known,
        orientation="horizontal",
        widths=BOX_HEIGHT,
        showfliers=False,
        boxprops=lines,
        whiskerprops=lines,
        capprops=lines,
        medianprops={"color": "black", "linewidth": 2},
    )
    for row, (values, rings) in enumerate(zip(known, hollow, strict=True)):
        _fill_box(axes, row, values, rings)
    names = [textwrap.shorten(label, 28, placeholder="…") for label in panel.values]
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set(title=panel.title, ylim=(len(names) + 0.6, 0.4))
    if panel.is_share:
        axes.set_xlim(-0.02, 1.02)
    else:
        axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)


def _fill_box(
    axes: Axes, row: int, values: Float[np.ndarray, " cases"], hollow: Bool[np.ndarray, " cases"]
) -> None:
    """Fill the box of one label with its colour, and scatter the cases over it."""
    fill = colour(row)
    if len(values):
        low, high = np.percentile(values, [25, 75])
        axes.barh(row + 1, high - low, BOX_HEIGHT, low, color=fill, alpha=0.3, linewidth=0)
    heights = row + 1 + np.random.default_rng(row).uniform(-0.18, 0.18, len(values))
    rings = {"facecolors": "none", "edgecolors": [fill], "linewidths": 1.3}
    axes.scatter(values[~hollow], heights[~hollow], s=22, color=fill, linewidths=0, **ABOVE)
    axes.scatter(values[hollow], heights[hollow], s=22, **rings, **ABOVE)


def _read_curves(metrics: Path) -> dict[str, Curve]:
    """Return the curve of each column."""
    rows = read_table(metrics)
    curves: dict[str, Curve] = {}
    for name in rows[0] if rows else []:
        points = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
        curves[name] = np.array(points).reshape(-1, 2).T
    return curves


def _draw_loss(axes: Axes, loss: Curve, validated: Curve, name: str) -> None:
    """Draw the loss of training, and that of validation where it was measured."""
    steps, values = loss[:, np.isfinite(loss[1])]
    if len(values) < MANY_EPOCHS:
        axes.plot(steps, values, color="black", marker=".", label=TRAINING)
    else:
        smooth = gaussian_filter1d(values, len(values) / 40, mode="nearest")
        axes.plot(steps, values, color="0.6", linewidth=0.8)
        axes.plot(steps, smooth, color="black", linewidth=1.8, label=TRAINING)
    axes.set(title="loss", ylabel=name)
    if validated.size:
        axes.plot(*validated, color=VALIDATION_COLOUR, marker=".", label=VALIDATION)
        axes.legend(frameon=False)


def _draw_learning_rate(axes: Axes, rate: Curve) -> None:
    """Draw the learning rate against an axis of its own at the right."""
    right = axes.twinx()
    right.plot(*rate, color="0.55", linestyle=":", marker="" if rate.shape[1] > 1 else ".")
    right.set_ylabel("learning rate (dotted)", color="0.4")
    right.set_ylim(bottom=0)
    right.yaxis.set_major_formatter(PLAIN)


def _draw_dice(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Draw the Dice of each label, and of `mean` as a black line."""
    axes.set(title=DICE_TITLE, ylim=(-0.02, 1.02), yticks=np.arange(0, 1.01, 0.1))
    labels = [name for name in curves if name != "mean"]
    for number, label in enumerate(labels):
        dashes = DASHES[number // len(COLOURS) % len(DASHES)]
        line = {"color": colour(number), "linestyle": dashes}
        axes.plot(*curves[label], marker=".", label=label, **line)
    mean = curves.get("mean", NOT_MEASURED)
    axes.plot(*mean, marker=".", color="black", linewidth=2.2, label="mean")
    if np.isfinite(mean[1]).any():
        step, best = mean[:, np.nanargmax(mean[1])]
        axes.set_title(f"{DICE_TITLE} (best mean {best:.3f}, step {step:.0f})")
    if mean.size or labels:
        place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axes.legend(**place, frameon=False, ncols=1 + len(labels) // 18)
    else:
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color="0.4")
