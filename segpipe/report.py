"""Pictures that a person looks at after a run: curves, and masks over their scans."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Num
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

# Okabe and Ito 2008: told apart by colour-blind people too
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
OPACITY = 0.35
READABLE = [withStroke(linewidth=2, foreground="black")]  # letters on bright and on dark anatomy
VIEWS = ("sagittal", "coronal", "axial")
# letters at the left, right, bottom and top edge of the view across each axis; the patient's right is on the left, as
# radiologists have it
EDGES = (("A", "P", "I", "S"), ("R", "L", "I", "S"), ("R", "L", "P", "A"))


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draws loss, learning rate and Dice per label against the step.

    Args:
        metrics: a run's `metrics.csv`, a row per epoch; cells are empty where nothing was measured.
        picture: PNG to write.
    """
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> tuple[list[float], list[float]]:
        found = [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]
        return [step for step, _ in found], [value for _, value in found]

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*column("loss"), color="black", marker="." if len(rows) < 20 else "")
    left.set(title="training loss (mean of an epoch)", xlabel="step", ylabel="Dice + cross-entropy")
    rate = left.twinx()
    rate.plot(*column("lr"), color="0.7", linestyle=":")
    rate.set_ylabel("learning rate (dotted)", color="0.5")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    labels = [name for name in rows[0] | {k: v for row in rows for k, v in row.items()} if name.startswith("dice/")]
    for place, name in enumerate(label for label in labels if label != "dice/mean"):
        right.plot(*column(name), marker=".", label=name.removeprefix("dice/"), color=COLOURS[place % len(COLOURS)])
    if "dice/mean" in labels:
        right.plot(*column("dice/mean"), marker=".", color="black", linewidth=2.5, label="mean")
        right.legend(loc="lower right")
    right.set(title="Dice of whole validation scans", xlabel="step", ylim=(0, 1.0), yticks=np.arange(0, 1.01, 0.1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    _save(figure, picture)


def draw_overlay(
    image: Num[np.ndarray, "x y z"],
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"] | None,
    spacing_mm: Sequence[float],
    names: Sequence[str],
    title: str,
    picture: Path,
) -> None:
    """Draws a mask over its scan in three slices through its largest cross-sections.

    The prediction is filled, the truth, where it is known, is a white outline.

    Args:
        image: the scan in RAS+ axes.
        prediction: ids 0, 1, 2 ... in the same axes.
        truth: likewise, or None.
        spacing_mm: voxel size along each axis.
        names: of the labels 1, 2 ...
        title: stands above the picture.
        picture: PNG to write.
    """
    views = [2] if image.shape[2] == 1 else [0, 1, 2]
    shown = (prediction > 0) | ((truth > 0) if truth is not None else False)
    low, high = np.percentile(image, [0.5, 99.5])
    figure = Figure(figsize=(4.2 * len(views), 4.8), layout="constrained", facecolor="black")
    for axes, axis in zip(np.ravel(figure.subplots(1, len(views))), views, strict=True):
        across = tuple(other for other in range(3) if other != axis)
        counts = shown.sum(axis=across)
        place = int(counts.argmax()) if counts.any() else image.shape[axis] // 2
        slices = [None if volume is None else _flat(volume, axis, place) for volume in (image, prediction, truth)]
        _draw_slice(axes, slices, (low, max(high, low + 1e-6)), [spacing_mm[other] for other in across])
        axes.set_title(f"{VIEWS[axis]}, slice {place}" if len(views) > 1 else "", color="white", fontsize=9)
        # a photograph has pixels and no anatomical sides
        _draw_scale_bar(axes, axes.get_xlim()[1], axes.get_ylim()[0], "mm" if len(views) > 1 else "px")
        if len(views) > 1:
            _draw_edges(axes, EDGES[axis])
    handles = [Line2D([], [], color=_colour(place), linewidth=6, label=name) for place, name in enumerate(names)]
    if truth is not None:
        handles.append(Line2D([], [], color="white", linewidth=1, label="truth"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(8, len(handles)),
        labelcolor="white",
        facecolor="black",
        edgecolor="0.3",
    )
    figure.suptitle(title, color="white", fontsize=11)
    _save(figure, picture)


def _flat(volume: np.ndarray, axis: int, place: int) -> np.ndarray:
    """A slice as rows and columns of the screen: the patient's right or front on the left, head or front on top."""
    return np.take(volume, place, axis).T[::-1, ::-1]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _draw_slice(
    axes: Axes, slices: Sequence[np.ndarray | None], window: tuple[float, float], spacing: Sequence[float]
) -> None:
    image, prediction, truth = slices
    assert image is not None
    assert prediction is not None
    grey = np.clip((image - window[0]) / (window[1] - window[0]), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label in np.unique(prediction[prediction > 0]):
        where = prediction == label
        picture[where] = (1 - OPACITY) * picture[where] + OPACITY * np.array(to_rgb(_colour(int(label) - 1)))
    rows, columns = grey.shape
    extent = (0.0, columns * spacing[0], rows * spacing[1], 0.0)  # millimetres
    axes.imshow(picture, extent=extent, interpolation="nearest")
    across, down = (np.arange(columns) + 0.5) * spacing[0], (np.arange(rows) + 0.5) * spacing[1]
    for labels, colour, width in ((prediction, None, 1.2), (truth, "white", 0.8)):
        for label in [] if labels is None or min(grey.shape) < 2 else np.unique(labels[labels > 0]):
            drawn = colour or _colour(int(label) - 1)
            axes.contour(across, down, labels == label, [0.5], colors=[drawn], linewidths=width)
    axes.set_axis_off()


def _draw_scale_bar(axes: Axes, width: float, height: float, unit: str) -> None:
    length = next(size for size in (200, 100, 50, 20, 10, 5, 2, 1, 0.5) if size <= width / 3 or size == 0.5)
    x, y = 0.04 * width, 0.96 * height
    axes.plot([x, x + length], [y, y], color="white", linewidth=2, solid_capstyle="butt", path_effects=READABLE)
    _write(axes, x + length / 2, y - 0.015 * height, f"{length:g} {unit}", "white", va="bottom")


def _draw_edges(axes: Axes, letters: Sequence[str]) -> None:
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    for letter, x, y in zip(letters, (0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.03, 0.97), strict=True):
        _write(axes, left + x * (right - left), bottom + y * (top - bottom), letter, "#F0E442", va="center")


def _write(axes: Axes, x: float, y: float, text: str, colour: str, va: str) -> None:
    axes.text(x, y, text, color=colour, fontsize=8, ha="center", va=va, path_effects=READABLE)


def _save(figure: Figure, picture: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, facecolor=figure.get_facecolor())
    picture.parent.mkdir(parents=True, exist_ok=True)
    part = picture.with_name(f".part-{os.getpid()}-{picture.name}")
    part.write_bytes(content.getvalue())
    os.replace(part, picture)
