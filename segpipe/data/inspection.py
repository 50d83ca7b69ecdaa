"""Read one case, check whether its files can be used, and measure what the plan needs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected_components

from segpipe.config.data import NaNPolicy
from segpipe.data.cases import MOST_LABELS, Case
from segpipe.data.ceiling import FACTORS, ceilings
from segpipe.data.inspected_case import InspectedCase
from segpipe.data.intensities import find_outlier
from segpipe.data.loading import load
from segpipe.data.prepare import to_index
from segpipe.errors import DataError, NotFiniteError
from segpipe.geometry import Grid, check_same_grid, corners_apart_mm
from segpipe.io.content import check_regular, voxel_digest
from segpipe.io.formats import is_image
from segpipe.io.label_maps import load_label_of
from segpipe.io.notes import collecting_notes
from segpipe.io.volumes import read
from segpipe.text import clipped, unwritable, visible

SAMPLE = 10_000  # labelled voxels per case that stand for its intensities
SAME_PLACE_MM = 1e-3  # a label map closer than this lies on its image
SPACING_MM = (0.02, 20.0)  # a spacing outside of this range is taken for a mistake of units
SHEAR = 1e-3  # cosine between two axes from which they are called oblique to one another
TOUCHING = np.ones((3, 3, 3))  # connected parts touch by a face, an edge or a corner

Problem = tuple[str, str, str]  # kind, problem and remedy of a finding


def inspect_case(
    case: Case,
    labels: dict[str, int] | None,
    ignore: int | None = None,
    nan: NaNPolicy = "refuse",
) -> InspectedCase:
    """Read the files of a case, check them and measure what the plan needs.

    Args:
        case: the case.
        labels: the declared label ids; None where the dataset declares none.
        ignore: id on disk of voxels that nobody has annotated.
        nan: what becomes of voxels that are NaN or infinite.
    """
    inspected = InspectedCase(case)
    if not _check_names(inspected):
        return inspected
    try:
        for path in case.files:
            check_regular(path)
        with noting(inspected):
            image = read(case.images, partial(load, nan=nan))
    except NotFiniteError as error:
        inspected.add("nan", str(error), "with fix=DIR, data.nan=fill writes a filled copy")
        return inspected
    except DataError as error:
        inspected.add("unreadable", str(error), "replace or leave out the file")
        return inspected
    voxels = image.numpy()
    inspected.grid = Grid.of(image)
    _measure_image(inspected, voxels)
    _check_blank(inspected, voxels)
    _check_outlier(inspected, voxels)
    _check_axes(inspected, inspected.grid)
    if case.label is None:
        return inspected
    label = _read_label(inspected, case.label, labels, ignore)
    if label is not None:
        _measure_label(inspected, voxels, label)
    return inspected


@contextmanager
def noting(inspected: InspectedCase) -> Iterator[None]:
    """Add what is warned of in the block to the findings."""
    with collecting_notes() as notes:
        yield
    for note in notes:
        remedy = "it is used as this says; correct the file if that is wrong"
        inspected.add(note.kind, note.text, remedy)


def _check_names(inspected: InspectedCase) -> bool:
    """Return whether files can be named after the case; the findings say why not."""
    name = inspected.case.name
    damage = unwritable(name)
    if not damage and ("/" in name or "\\" in name or name.startswith(".")):
        damage = "holds a separator of folders, or begins with a point"
    if not damage:
        return True
    inspected.add("name", f"the case {clipped(visible(name))}: its name {damage}", "rename it")
    return False


def _measure_image(inspected: InspectedCase, voxels: np.ndarray) -> None:
    filled = voxels != 0
    inspected.content = voxel_digest(voxels)
    inspected.foreground = np.empty((len(voxels), 0), np.float32)
    inspected.zero_fraction = 1 - filled.mean((1, 2, 3))
    inspected.box = _box_size(filled.any(0))


def _measure_label(inspected: InspectedCase, voxels: np.ndarray, label: np.ndarray) -> None:
    labelled = voxels[:, label > 0]
    step = max(1, labelled.shape[1] // SAMPLE)
    inspected.label_content = voxel_digest(label)
    with np.errstate(over="ignore"):  # an outlier, which is named already
        inspected.foreground = labelled[:, ::step].astype(np.float32)
    assert inspected.grid is not None
    _measure_labels(inspected, label, inspected.grid.spacing_mm.tolist())


def _box_size(mask: np.ndarray) -> np.ndarray:
    """Return the size of the smallest box around a mask; of an empty mask, its own size."""
    for box in find_objects(mask.astype(np.uint8)):
        if box is not None:
            return np.array([side.stop - side.start for side in box])
    return np.array(mask.shape)


def _measure_labels(
    inspected: InspectedCase, label: np.ndarray, spacing_mm: Sequence[float]
) -> None:
    """Measure the size and the fineness of each label that the case has."""
    sizes: list[list[int]] = []
    fineness: list[np.ndarray] = []
    for number, box in enumerate(find_objects(label.astype(np.int32)), start=1):
        if box is None:
            continue
        mask = label[box] == number
        parts: Any = connected_components(mask, TOUCHING)[0]  # type: ignore[index]
        voxels = np.bincount(parts.ravel())[1:]
        sizes.append([number, voxels.sum(), len(voxels), voxels.max()])
        fineness.append(ceilings(mask, spacing_mm))
    inspected.sizes = np.array(sizes, np.int64).reshape(-1, 4)
    inspected.ceilings = np.array(fineness).reshape(-1, len(FACTORS))


def _check_blank(inspected: InspectedCase, voxels: np.ndarray) -> None:
    """Check that the image, and each of its channels, has more than one value."""
    name = inspected.case.images[0]
    blank = [number for number, channel in enumerate(voxels) if channel.min() == channel.max()]
    if len(blank) == len(voxels):
        problem = f"{name}: every voxel of the image is {voxels.flat[0]:g}"
        inspected.add("constant", problem, "leave out the case")
        return
    for number in blank:
        inspected.add(
            "blank",
            f"{name}: every voxel of channel {number} is {voxels[number].flat[0]:g}",
            "a missing sequence? the network will learn that it may be missing",
        )


def _check_outlier(inspected: InspectedCase, voxels: np.ndarray) -> None:
    """Check that no few voxels dwarf all others, which would make the network see one grey."""
    for number, channel in enumerate(voxels):
        outlier = find_outlier(channel)
        if outlier is not None:
            inspected.add(
                "outlier",
                f"{inspected.case.images[0]}: channel {number} holds {outlier}",
                "set such voxels to a plausible value, or leave out the case",
            )


def _check_axes(inspected: InspectedCase, grid: Grid) -> None:
    """Check that the spacing is plausible, and that the axes are perpendicular."""
    name = inspected.case.images[0]
    spacing = grid.spacing_mm
    is_odd = spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]
    if is_odd and not is_image(name):  # of a microscope, which names its unit
        sizes = "x".join(f"{mm:.3g}" for mm in spacing)
        problem = f"{name}: has voxels of {sizes} mm"
        inspected.add("spacing", problem, "check the unit of the header's spacing")
    directions = grid.affine[:3, :3] / spacing
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if cosine > SHEAR:
        degrees = float(np.degrees(np.arcsin(min(cosine, 1))))
        inspected.add(
            "shear",
            f"{name}: its axes are {degrees:.1f} degrees off right angles",
            "a tilted gantry? resample it to a rectangular grid; distances in mm are approximate",
        )


def _read_label(
    inspected: InspectedCase, path: Path, labels: dict[str, int] | None, ignore: int | None
) -> np.ndarray | None:
    """Return the label map `(x, y, z)`; None where it cannot be used, which is then a finding."""
    assert inspected.grid is not None
    try:
        with noting(inspected):
            volume = load_label_of(path, inspected.grid, inspected.case.images[0], labels)
    except DataError as error:
        inspected.add("unreadable", str(error), "replace or leave out the file")
        return None
    label = volume.numpy()
    if not _lies_on_image(inspected, path, Grid.of(volume)):
        return None
    if ignore is not None:
        label = np.where(label == ignore, 0, label)
    inspected.ids = np.unique(label)
    problem = _label_problem(path, label, inspected.ids, labels)
    if problem is not None:
        inspected.add(*problem)
        return None
    if inspected.ids.max() == 0:
        inspected.add(
            "unlabelled",
            f"{path}: has no labelled voxel",
            "keep it if that is right; else look for the right file",
        )
    return label[0]


def _lies_on_image(inspected: InspectedCase, path: Path, grid: Grid) -> bool:
    """Return whether a label map has its image's grid; the findings say where it has not."""
    assert inspected.grid is not None
    try:
        check_same_grid(inspected.case.images[0], inspected.grid, path, grid)
    except DataError as error:
        inspected.add("grid", str(error), "export image and label from the same series again")
        return False
    distance_mm = corners_apart_mm(inspected.grid, grid)
    if distance_mm > SAME_PLACE_MM:
        problem = f"{path}: lies up to {distance_mm:.3g} mm from its image"
        inspected.add("affine", problem, "copy the image's affine")
    return True


def _label_problem(
    path: Path, label: np.ndarray, ids: np.ndarray, labels: dict[str, int] | None
) -> Problem | None:
    """Return what is wrong with the values of a label map, if anything."""
    problem = _id_problem(path, label, ids)
    if problem is not None or labels is None:
        return problem
    if ids.tolist() == [0, 255] and 255 not in labels.values():
        return (
            "picture",
            f"{path}: holds 0 and 255, a picture of a mask",
            "divide it by 255, or declare data.labels with the id 255",
        )
    try:
        to_index(label, labels, path)
    except DataError as error:
        return "values", str(error), "correct the label map, or declare all its ids by data.labels"
    return None


def _id_problem(path: Path, label: np.ndarray, ids: np.ndarray) -> Problem | None:
    """Return why the values of a label map cannot be ids, if they cannot."""
    if (ids != np.round(ids)).any() or len(ids) > MOST_LABELS + 1:
        return (
            "values",
            f"{path}: holds {len(ids)} values from {ids.min():g} to {ids.max():g}, which are not "
            f"label ids (whole numbers from 0, at most {MOST_LABELS} of them); is it an image?",
            "give the label map, or round one that was interpolated",
        )
    if ids.min() < 0:
        count = int((label < 0).sum())
        return (
            "values",
            f"{path}: holds {count} negative values, down to {ids.min():g}",
            "label ids start from 0",
        )
    return None
