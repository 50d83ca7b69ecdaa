"""Pictures of masks over their scans, in colours and a style that all pictures share."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Num
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from segpipe.files import atomic

# Okabe and Ito 2008: told apart by colour-blind people too
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
OPACITY = 0.35
TRUTH_DASHES = (0, (4, 2))
AIR_HU, SOFT_TISSUE_HU = -500, (-160, 240)  # no other modality goes as low as a CT's air
SAMPLE, ENOUGH = (
    1_000_000,
    1_000,
)  # voxels that tell the contrast of a scan, and of what is labelled
DPI = 110
VIEWS = ("sagittal", "coronal", "axial")
# letters at the left, right, bottom and top edge of the view across each axis; the patient's right is on the left, as
# radiologists have it
EDGES = (("A", "P", "I", "S"), ("R", "L", "I", "S"), ("R", "L", "P", "A"))


def draw_overlay(
    image: Num[np.ndarray, "x y z"],
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"] | None,
    spacing_mm: Sequence[float],
    names: Sequence[str],
    title: str,
    picture: Path,
) -> None:
    """Draws a mask over its scan in the sagittal, coronal and axial slice that holds most of it.

    The prediction is filled; the truth, where it is known, is a dashed outline. An image of one slice has one view, and
    one that is also without a physical size (1 mm, as pixels of a photograph have it) has neither sides nor mm.

    Args:
        image: the scan in RAS+ axes.
        prediction: ids 0, 1, 2 ... in the same axes.
        truth: likewise, or None.
        spacing_mm: voxel size along each axis.
        names: of the labels 1, 2 ...
        title: stands above the picture.
        picture: PNG to write.
    """
    views = [axis for axis in (2, 1, 0) if image.shape[axis] == 1][:1] or [0, 1, 2]
    anatomical = len(views) > 1 or tuple(spacing_mm) != (1, 1, 1)
    labelled = prediction > 0 if truth is None else (prediction > 0) | (truth > 0)
    handles = _legend(names, prediction, truth)
    figure, panels = _panels(np.multiply(image.shape, spacing_mm), views, 1 + len(handles) // 4)
    seen = contrast(image, labelled)
    for axes, axis in zip(panels, views, strict=True):
        place = _fullest(labelled, axis)
        grey = _shades(_flat(image, axis, place), seen)
        slices = [
            grey,
            *(None if mask is None else _flat(mask, axis, place) for mask in (prediction, truth)),
        ]
        _draw_slice(axes, slices, _across(spacing_mm, axis))
        _draw_scale_bar(axes, "mm" if anatomical else "px")
        if anatomical:
            _draw_sides(
                axes, EDGES[axis], f"{VIEWS[axis]}, slice {place + 1} of {image.shape[axis]}"
            )
    _draw_legend(figure, handles)
    note = (
        "\nradiological view: the patient's right is on the left"
        if anatomical and views != [0]
        else ""
    )
    figure.suptitle(
        textwrap.fill(title, int(10 * figure.get_figwidth())) + note, color="white", fontsize=10
    )
    save(figure, picture)


def _panels(
    size_mm: np.ndarray, views: Sequence[int], legend_lines: int
) -> tuple[Figure, list[Axes]]:
    """A black figure with a panel per view, all at one scale where they are not too thin for it."""
    widths, heights = (
        np.array([_across(size_mm, axis)[side] for axis in views]) for side in (0, 1)
    )
    widths = np.maximum(widths, 0.3 * widths.max())  # a thin slab of slices is still to be seen
    across_in = 12.6 if len(views) > 1 else 6.3
    down_in = float(np.clip(across_in * heights.max() / widths.sum(), 2.5, 9))
    figure = Figure(
        figsize=(across_in, down_in + 1 + 0.2 * legend_lines),
        layout="constrained",
        facecolor="black",
    )
    return figure, list(np.ravel(figure.subplots(1, len(views), width_ratios=widths.tolist())))


def _across(of_axes: Sequence[float] | np.ndarray, axis: int) -> tuple[float, float]:
    """What belongs to the two axes that a view across this one shows: width, height."""
    width, height = (float(value) for other, value in enumerate(of_axes) if other != axis)
    return width, height


def window(image: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Grey values 0 to 1 in the contrast of `contrast`."""
    return _shades(image, contrast(image, labelled))


def contrast(image: np.ndarray, labelled: np.ndarray) -> tuple[float, float]:
    """What is black and what is white: the 0.5th and 99.5th percentiles.

    Of a CT, whose air would hide the rest, it is the window of soft tissue, -160 to 240 HU, widened to the labelled
    voxels (of lung or bone) where they need it.

    Args:
        image: of any shape.
        labelled: where a label is, in the same shape.
    """
    apart = math.ceil(
        (image.size / SAMPLE) ** (1 / image.ndim)
    )  # of a large scan some voxels tell as much
    few = (slice(None, None, apart),) * image.ndim
    some = image[few]
    known = some[np.isfinite(some)].astype(float)
    low, high = np.percentile(known, [0.5, 99.5]) if known.size else (0.0, 1.0)
    if low == high:  # nearly all one value: whatever differs is all there is to see
        every = image[np.isfinite(image)]
        low, high = every.min(), every.max()
    if low < AIR_HU:
        inside = (
            some[labelled[few]] if np.count_nonzero(labelled[few]) > ENOUGH else image[labelled]
        )
        lowest, highest = np.percentile(inside, [5, 95]) if inside.size else SOFT_TISSUE_HU
        low, high = min(SOFT_TISSUE_HU[0], lowest), max(SOFT_TISSUE_HU[1], highest)
    return float(low), float(high)


def _shades(values: np.ndarray, seen: tuple[float, float]) -> np.ndarray:
    low, high = seen
    return np.clip((np.nan_to_num(values, nan=low) - low) / ((high - low) or 1), 0, 1)


def _fullest(labelled: np.ndarray, axis: int) -> int:
    """The slice across an axis that has most labelled voxels; the middle one if none has any."""
    counts = labelled.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def _flat(volume: np.ndarray, axis: int, place: int) -> np.ndarray:
    """A slice as rows and columns of the screen: the patient's right or front on the left, head or front on top."""
    return volume[(*[slice(None)] * axis, place)].T[::-1, ::-1]


def colour(place: int) -> tuple[float, float, float]:
    """Red, green and blue, 0 to 1: one of the palette; after it, each again mixed with white, then with black.

    Args:
        place: of the label among those that are not background, or of a curve, from 0.
    """
    turn, place = divmod(place, len(COLOURS))
    share = (0.0, 0.4, 0.4)[turn % 3]  # the first 21 differ well; test_report measures it
    red, green, blue = (
        (1 - share) * part + share * (turn % 3 == 1) for part in to_rgb(COLOURS[place])
    )
    return red, green, blue


def _draw_slice(
    axes: Axes, slices: Sequence[np.ndarray | None], spacing: tuple[float, float]
) -> None:
    grey, prediction, truth = slices
    assert grey is not None
    assert prediction is not None
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label in np.unique(prediction[prediction > 0]):
        where = prediction == label
        picture[where] = (1 - OPACITY) * picture[where] + OPACITY * np.array(colour(int(label) - 1))
    rows, columns = grey.shape
    edges = (0.0, columns * spacing[0], rows * spacing[1], 0.0)  # millimetres
    # "auto" keeps enlarged voxels sharp and averages those that share a pixel of the screen
    axes.imshow(picture, extent=edges, interpolation="auto")
    for label in np.unique(prediction[prediction > 0]):
        _outline(axes, prediction == label, spacing, colour(int(label) - 1), 2.0, "-")
    for label in [] if truth is None else np.unique(truth[truth > 0]):
        _outline(
            axes, truth == label, spacing, "black", 0.9, "-"
        )  # seen on bright anatomy between the dashes
        _outline(axes, truth == label, spacing, "white", 0.9, TRUTH_DASHES)
    axes.set(xlim=edges[:2], ylim=edges[2:])
    axes.set_axis_off()


def _outline(
    axes: Axes,
    mask: np.ndarray,
    spacing: tuple[float, float],
    colour: str | tuple[float, float, float],
    width: float,
    dashes: str | tuple[int, tuple[int, ...]],
) -> None:
    """Along the voxels' edges: a contour between their centres would cut corners by half a voxel."""
    parts = int(np.clip(1024 // max(mask.shape), 1, 8))
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(way))[[0, -1]] for way in (1, 0))
    fine = np.pad(mask[top : bottom + 1, left : right + 1].repeat(parts, 0).repeat(parts, 1), 1)
    down, across = (
        start + (np.arange(size) - 0.5) / parts
        for start, size in zip((top, left), fine.shape, strict=True)
    )
    axes.contour(
        across * spacing[0],
        down * spacing[1],
        fine,
        [0.5],
        colors=[colour],
        linewidths=width,
        linestyles=[dashes],
    )


def _draw_scale_bar(axes: Axes, unit: str) -> None:
    """Below the slice, so that it covers none of it."""
    width = axes.get_xlim()[1]
    length = next(
        size
        for size in (200, 100, 50, 20, 10, 5, 2, 1, 0.5, 0.1)
        if size <= width / 3 or size == 0.1
    )
    below = axes.get_xaxis_transform() + ScaledTranslation(
        0, -7 / 72, axes.figure.dpi_scale_trans
    )  # 7 points
    style = {"color": "white", "transform": below, "clip_on": False}
    axes.plot([0, length], [0, 0], linewidth=2.5, solid_capstyle="butt", **style)
    axes.annotate(
        f"{length:g} {unit}",
        (0, 0),
        (0, -4),
        below,
        "offset points",
        color="white",
        fontsize=8,
        va="top",
    )


def _draw_sides(axes: Axes, letters: Sequence[str], view: str) -> None:
    """Beside the slice, so that they cover none of it."""
    axes.set_title(view, color="white", fontsize=9, pad=16)
    places = (((0, 0.5), (-4, 0), "right", "center"), ((1, 0.5), (4, 0), "left", "center"))
    places += (((0.5, 0), (0, -5), "center", "top"), ((0.5, 1), (0, 3), "center", "bottom"))
    style = {"color": "white", "fontsize": 10, "fontweight": "bold"}
    for letter, (edge, points, ha, va) in zip(letters, places, strict=True):
        axes.annotate(letter, edge, points, "axes fraction", "offset points", ha=ha, va=va, **style)


def _legend(
    names: Sequence[str], prediction: np.ndarray, truth: np.ndarray | None
) -> list[Patch | Line2D]:
    """A box for each label that is in either mask, and the outline of the truth."""
    masks = [prediction] if truth is None else [prediction, truth]
    handles: list[Patch | Line2D] = [
        Patch(facecolor=(*colour(place), 0.6), edgecolor=colour(place), linewidth=1.5, label=name)
        for place, name in enumerate(names)
        if any((mask == place + 1).any() for mask in masks)
    ]
    if truth is not None:
        handles.append(
            Line2D([], [], color="white", linewidth=1.2, linestyle=TRUTH_DASHES, label="truth")
        )
    return handles


def _draw_legend(figure: Figure, handles: Sequence[Patch | Line2D]) -> None:
    if not handles:
        return
    letters = 6 + max(len(str(handle.get_label())) for handle in handles)
    columns = int(np.clip(figure.get_figwidth() * 11 // letters, 1, len(handles)))
    style = {"labelcolor": "white", "facecolor": "black", "edgecolor": "black", "fontsize": 9}
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, **style)


def save(figure: Figure, picture: Path) -> None:
    """Writes a PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    with atomic(picture) as part:
        part.write_bytes(content.getvalue())
