"""Pictures of masks over their scans, in colours and a style that all pictures share."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Num
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation

from segpipe.reporting.contrast import contrast, foreground, to_grey
from segpipe.reporting.figures import save

# Okabe and Ito 2008: also told apart with colour vision deficiency
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
LINE = 1.5  # width of a contour, points
CASING = 1.1  # of black around it, so that it is visible on bright anatomy
DASHES = (0, (2.4, 1.6))
DPI = 187  # a picture of three views is some 1400 pixels wide, its letters are legible at 600
MOST_DPI = 400
WIDTHS = (7.4, 4.2)  # of a picture of three views, and of one, inches
VIEWS = ("sagittal", "coronal", "axial")
# letters at the left, right, bottom and top edge of the view across each axis, in radiological
# convention: the patient's right is on the left
EDGES = (("A", "P", "I", "S"), ("R", "L", "I", "S"), ("R", "L", "P", "A"))
BAR_LENGTHS = (200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.1)
RADIOLOGICAL = "radiological view: the patient's right is on the left"

Color = tuple[float, float, float]
Dashes = str | tuple[int, tuple[float, ...]]


def draw_overlay(
    image: Num[np.ndarray, "x y z"],
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"] | None,
    spacing_mm: Sequence[float],
    names: Sequence[str],
    title: str,
    picture: Path,
    in_mm: bool = True,
) -> None:
    """Draw a mask over its scan, in the sagittal, coronal and axial slice that holds most of it.

    Masks are contours in the colours of their labels, so that the image stays visible: the truth
    is solid and the prediction dashed; a prediction alone is solid. An image of one slice has one
    view; in pixels, or with a spacing of 1 mm, as that of a photograph, it gets neither letters of
    the sides nor mm.

    Args:
        image: scan in RAS+ axes.
        prediction: index of the label of each voxel, in the same axes.
        truth: likewise, or None.
        spacing_mm: voxel size along each axis.
        names: the names of the labels 1, 2, ...
        title: above the picture; empty where a page names the case.
        picture: PNG file to write.
        in_mm: whether the spacing is in mm rather than in pixels.
    """
    views = _choose_views(image.shape)
    anatomical = in_mm and (len(views) > 1 or tuple(spacing_mm) != (1, 1, 1))
    labelled = foreground(prediction, truth)
    handles = _legend_handles(names, prediction, truth)
    size_mm = np.multiply(image.shape, spacing_mm)
    figure, panels = _make_panels(size_mm, views, 1 + len(handles) // 4)
    limits = contrast(image, labelled)
    for axes, axis in zip(panels, views, strict=True):
        index = _fullest_slice(labelled, axis)
        grey = to_grey(_screen_slice(image, axis, index), limits)
        truth_slice = None if truth is None else _screen_slice(truth, axis, index)
        spacing = _view_axes(spacing_mm, axis)
        _draw_slice(axes, grey, _screen_slice(prediction, axis, index), truth_slice, spacing)
        _draw_scale_bar(axes, "mm" if anatomical else "px")
        if anatomical:
            view = f"{VIEWS[axis]}\nslice {index + 1} of {image.shape[axis]}"
            _draw_sides(axes, EDGES[axis], view)
    _draw_legend(figure, handles)
    if title:
        heading = textwrap.fill(title, int(12 * figure.get_figwidth()))
        if anatomical and views != [0]:
            heading += f"\n{RADIOLOGICAL}"
        figure.suptitle(heading, color="white", fontsize=8)
    save(figure, picture, _resolution(image.shape, views))


def _resolution(shape: Sequence[int], views: Sequence[int]) -> int:
    """Return dots per inch: of a large image of one slice so many that its pixels are visible."""
    if len(views) > 1:
        return DPI
    return int(np.clip(max(shape) / WIDTHS[1], DPI, MOST_DPI))


def _choose_views(shape: Sequence[int]) -> list[int]:
    """Return the axes across which slices are drawn: all, or that of an image of one slice."""
    for axis in (2, 1, 0):
        if shape[axis] == 1:
            return [axis]
    return [0, 1, 2]


def _make_panels(
    size_mm: np.ndarray, views: Sequence[int], legend_lines: int
) -> tuple[Figure, list[Axes]]:
    """Return a black figure with a panel per view, at one scale unless a view is very narrow."""
    sizes = np.array([_view_axes(size_mm, axis) for axis in views])
    widths = np.maximum(sizes[:, 0], 0.3 * sizes[:, 0].max())
    width_in = WIDTHS[0] if len(views) > 1 else WIDTHS[1]
    height_in = float(np.clip(width_in * sizes[:, 1].max() / widths.sum(), 1.5, 5.5))
    figure = Figure(
        figsize=(width_in, height_in + 0.5 + 0.2 * legend_lines),
        layout="constrained",
        facecolor="black",
    )
    return figure, list(np.ravel(figure.subplots(1, len(views), width_ratios=widths.tolist())))


def _view_axes(values: Sequence[float] | np.ndarray, axis: int) -> tuple[float, float]:
    """Return the values of the two axes that the view across `axis` shows: horizontal, vertical."""
    width, height = np.delete(np.asarray(values, float), axis).tolist()
    return width, height


def _fullest_slice(labelled: np.ndarray, axis: int) -> int:
    """Return the slice across an axis with most labelled voxels; the middle one if none has any."""
    counts = np.moveaxis(labelled, axis, 0).reshape(labelled.shape[axis], -1).sum(axis=1)
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def _screen_slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Return a slice as rows and columns of the screen.

    The patient's right or front is on the left, head or front on top.
    """
    return np.take(volume, index, axis).T[::-1, ::-1]


def colour(index: int) -> tuple[float, float, float]:
    """Return red, green and blue, 0 to 1, of a label or a curve.

    After the palette come its colours mixed with white, then with black; the first 21 differ well.

    Args:
        index: from 0, among the labels without the background.
    """
    cycle, entry = divmod(index, len(COLOURS))
    shade = cycle % 3  # 0: as in the palette, 1: lighter, 2: darker
    share = 0.4 if shade else 0.0
    target = 1.0 if shade == 1 else 0.0
    mixed = (1 - share) * np.array(to_rgb(COLOURS[entry])) + share * target
    red, green, blue = mixed.tolist()
    return red, green, blue


def _draw_slice(
    axes: Axes,
    grey: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None,
    spacing: tuple[float, float],
) -> None:
    """Draw a slice with the contours of both masks, in mm."""
    rows, columns = grey.shape
    extent = (0.0, columns * spacing[0], rows * spacing[1], 0.0)
    # "auto" keeps enlarged voxels sharp, and averages voxels that share a pixel of the screen
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="auto")
    if truth is not None:
        _draw_contours(axes, truth, spacing, "-")
    _draw_contours(axes, prediction, spacing, "-" if truth is None else DASHES)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    axes.set_axis_off()


def _draw_contours(
    axes: Axes, mask: np.ndarray, spacing: tuple[float, float], dashes: Dashes
) -> None:
    """Draw the outline of each label in its colour."""
    for label in np.unique(mask[mask > 0]):
        _outline(axes, mask == label, spacing, colour(int(label) - 1), dashes)


def _outline(
    axes: Axes,
    mask: np.ndarray,
    spacing: tuple[float, float],
    color: Color,
    dashes: Dashes,
) -> None:
    """Draw the outline of a mask along the edges of its voxels.

    A contour between voxel centres would cut corners by half a voxel, so each voxel is enlarged to
    several before it is contoured.
    """
    factor = int(np.clip(1024 // max(mask.shape), 1, 8))
    top, bottom = np.flatnonzero(mask.any(axis=1))[[0, -1]]
    left, right = np.flatnonzero(mask.any(axis=0))[[0, -1]]
    box = mask[top : bottom + 1, left : right + 1]
    fine = np.pad(box.repeat(factor, 0).repeat(factor, 1), 1)
    rows = top + (np.arange(fine.shape[0]) - 0.5) / factor
    columns = left + (np.arange(fine.shape[1]) - 0.5) / factor
    drawn = axes.contour(
        columns * spacing[0],
        rows * spacing[1],
        fine,
        [0.5],
        colors=[color],
        linewidths=LINE,
        linestyles=[dashes],
    )
    drawn.set_path_effects([withStroke(linewidth=LINE + CASING, foreground="black")])


def _bar_length(width: float) -> float:
    """Return the longest round length that is at most a third of a width."""
    for length in BAR_LENGTHS:
        if length <= width / 3:
            return length
    return BAR_LENGTHS[-1]


def _draw_scale_bar(axes: Axes, unit: str) -> None:
    """Draw a scale bar below the slice, 7 points away, where it hides none of it."""
    length = _bar_length(axes.get_xlim()[1])
    offset = ScaledTranslation(0, -7 / 72, axes.figure.dpi_scale_trans)
    below = axes.get_xaxis_transform() + offset
    style = {"color": "white", "transform": below, "clip_on": False}
    axes.plot([0, length], [0, 0], linewidth=2.5, solid_capstyle="butt", **style)
    axes.annotate(
        f"{length:g} {unit}",
        (0, 0),
        (0, -3),
        below,
        "offset points",
        color="white",
        fontsize=9,
        va="top",
    )


def _draw_sides(axes: Axes, letters: Sequence[str], view: str) -> None:
    """Write the letters of the patient's sides around the slice, where they hide none of it."""
    axes.set_title(view, color="white", fontsize=9, pad=17)
    anchors = (
        ((0, 0.5), (-4, 0), "right", "center"),
        ((1, 0.5), (4, 0), "left", "center"),
        ((0.5, 0), (0, -5), "center", "top"),
        ((0.5, 1), (0, 3), "center", "bottom"),
    )
    style = {"color": "white", "fontsize": 10, "fontweight": "bold"}
    for letter, (edge, points, ha, va) in zip(letters, anchors, strict=True):
        axes.annotate(letter, edge, points, "axes fraction", "offset points", ha=ha, va=va, **style)


def _legend_handles(
    names: Sequence[str], prediction: np.ndarray, truth: np.ndarray | None
) -> list[Line2D]:
    """Return a line for each label that occurs in either mask, and one of each kind of line."""
    present = set(np.unique(prediction).tolist())
    if truth is not None:
        present.update(np.unique(truth).tolist())
    handles: list[Line2D] = []
    for index, name in enumerate(names):
        if index + 1 in present:
            handles.append(Line2D([], [], color=colour(index), linewidth=4, label=name))
    if truth is not None:
        handles.append(Line2D([], [], color="white", label="truth"))
        handles.append(Line2D([], [], color="white", linestyle=DASHES, label="prediction"))
    return handles


def _draw_legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Draw a legend below the panels, in as many columns as fit."""
    if not handles:
        return
    letters = 6 + max(len(str(handle.get_label())) for handle in handles)
    columns = int(np.clip(figure.get_figwidth() * 12 // letters, 1, len(handles)))
    style = {"labelcolor": "white", "facecolor": "black", "edgecolor": "black", "fontsize": 9}
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, **style)
