"""DICOM structure sets (RTSTRUCT) as label maps: outlines in mm become voxels, and back.

A voxel is inside an outline where its centre is. Outlines of one structure in one slice cut holes
into one another.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer

from segpipe.errors import DataError
from segpipe.io.dicom_file import guarded, read_without_pixels
from segpipe.io.dicom_segments import ids_by_name, merge_segment
from segpipe.io.dicom_stacks import LPS_TO_RAS

OFF_SLICE = 0.25  # slices that an outline may lie off the middle of one
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
EDGES = 4096  # of a polygon that are looked at together
NAMED = 5  # structures that a message names at most
_logger = logging.getLogger("segpipe")


@dataclass(frozen=True)
class Structure:
    """A structure of a structure set.

    Attributes:
        number: its number in the file.
        name: its name.
        outlines: its polygons, each in one plane; their corners `(corners, 3)`, LPS+, mm.
    """

    number: int
    name: str
    outlines: list[np.ndarray]


def read_structures(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    labels: Mapping[str, int] | None = None,
) -> Integer[np.ndarray, "x y z"]:
    """Read a structure set as label ids on the grid of its scan.

    Args:
        path: the path of the structure set.
        shape: the shape of the scan, (x, y, z).
        affine: the affine of the scan, to mm in RAS+.
        labels: name -> id; where some structures have such names, these are read and the others are
            left out, with a warning. Else ids are the numbers of the structures.

    Raises:
        DataError: if it cannot be read, or an outline does not lie in a slice of the scan.
    """
    structures = [structure for structure in _structures(path) if structure.outlines]
    if not structures:
        raise DataError(f"{path}: holds no closed outline")
    names = {structure.number: structure.name for structure in structures}
    ids = ids_by_name(names, labels, every=False) or {number: number for number in names}
    left_out = [name for number, name in names.items() if number not in ids]
    if left_out:
        more = " ..." if left_out[NAMED:] else ""
        _logger.warning(
            "%s: structures that are no labels are left out: %s%s",
            path,
            ", ".join(left_out[:NAMED]),
            more,
        )
    found = np.zeros(shape, np.min_scalar_type(max(ids.values())))
    for structure in structures:
        if structure.number in ids:
            inside = fill(path, structure.outlines, found.shape, affine)
            merge_segment(found, inside, ids[structure.number], f"{path}: {structure.name}")
    return found


def _structures(path: Path) -> list[Structure]:
    """Return the structures of a file."""
    data = read_without_pixels(path)
    with guarded(path):
        names = {}
        for item in data.get("StructureSetROISequence") or ():
            names[int(item.ROINumber)] = str(item.get("ROIName") or "").strip()
        found = []
        for item in data.get("ROIContourSequence") or ():
            number = int(item.ReferencedROINumber)
            if number < 0 or number > np.iinfo(np.uint32).max:
                raise DataError(f"{path}: has a structure of the number {number}")
            found.append(Structure(number, names.get(number, ""), list(_outlines(path, item))))
    return found


def _outlines(path: Path, structure: Any) -> Iterator[np.ndarray]:
    """Yield the closed outlines of a structure; points and open lines enclose nothing."""
    for contour in structure.get("ContourSequence") or ():
        if contour.get("ContourGeometricType") not in CLOSED:
            continue
        corners = _numbers(contour)
        if corners.size % 3 or not np.isfinite(corners).all():
            raise DataError(f"{path}: holds an outline whose corners are not three numbers each")
        if corners.size >= 9:
            yield corners.reshape(-1, 3)


def _numbers(contour: Any) -> np.ndarray:
    """Return the coordinates of an outline.

    They are taken from the bytes of the file, since an object for each would take seconds.
    """
    element = contour.get_item("ContourData")
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.strip(b" \0").split(b"\\")
    return np.array([] if value is None else value, float)


def fill(
    path: Path, outlines: Sequence[np.ndarray], shape: tuple[int, ...], affine: np.ndarray
) -> Bool[np.ndarray, "x y z"]:
    """Return the voxels of a scan inside outlines.

    Args:
        path: the path of the structure set, for messages.
        outlines: each `(corners, 3)`, LPS+, mm.
        shape: the shape of the scan, (x, y, z).
        affine: the affine of the scan, to mm in RAS+.

    Raises:
        DataError: if an outline does not lie in a slice of the scan.
    """
    to_voxels = np.linalg.inv(affine) @ LPS_TO_RAS
    inside = np.zeros(shape, bool)
    for outline in outlines:
        corners = outline @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        axis = int(np.ptp(corners, axis=0).argmin())
        level = float(corners[:, axis].mean())
        number = round(level)
        if np.abs(corners[:, axis] - number).max() > OFF_SLICE:
            raise DataError(f"{path}: an outline lies between the slices of the scan, at {level:g}")
        if not 0 <= number < shape[axis]:
            raise DataError(f"{path}: an outline lies outside of the scan {shape}")
        in_plane = np.moveaxis(inside, axis, 0)[number]  # a view
        _turn_inside(in_plane, np.delete(corners, axis, 1))
    return inside


def _turn_inside(plane: Bool[np.ndarray, "x y"], corners: Float[np.ndarray, "n 2"]) -> None:
    """Invert the points of a plane inside a polygon, by the even-odd rule, in place.

    Along each line of the grid, every crossing with an edge turns outside into inside, or back.
    """
    size = np.array(plane.shape)
    start = np.clip(np.floor(corners.min(0)), 0, size).astype(int)
    stop = np.clip(np.floor(corners.max(0)) + 1, start, size).astype(int)
    box = plane[start[0] : stop[0], start[1] : stop[1]]
    turns = np.zeros((box.shape[0] + 1, box.shape[1]), bool)
    starts = corners - start
    ends = np.roll(starts, -1, axis=0)
    for first in range(0, len(corners), EDGES):
        few = slice(first, first + EDGES)
        _add_crossings(turns, starts[few], ends[few])
    box ^= np.logical_xor.accumulate(turns, axis=0)[:-1]


def _add_crossings(turns: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Turn the first point behind each crossing of an edge with a line of the grid, in place.

    Args:
        turns: for each point of the grid whether it is turned, `(x + 1, y)`.
        starts: the starts of the edges, `(n, 2)`.
        ends: the ends of the edges, `(n, 2)`.
    """
    upwards = (starts[:, 1] <= ends[:, 1])[:, None]
    low = np.where(upwards, starts, ends)
    high = np.where(upwards, ends, starts)
    first = np.clip(np.ceil(low[:, 1]), 0, turns.shape[1]).astype(int)
    stop = np.clip(np.ceil(high[:, 1]), 0, turns.shape[1]).astype(int)
    counts = stop - first
    edge = np.repeat(np.arange(len(starts)), counts)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    share = (line - low[edge, 1]) / (high - low)[edge, 1]
    crossing = low[edge, 0] + share * (high - low)[edge, 0]
    behind = np.clip(np.ceil(crossing), 0, turns.shape[0] - 1).astype(int)
    np.logical_xor.at(turns, (behind, line), True)


def trace(mask: Bool[np.ndarray, "x y"]) -> list[Float[np.ndarray, "n 2"]]:
    """Return the outlines of a mask in voxels: closed polygons half way between in and out.

    Corners on a straight line are left out.
    """
    from contourpy import LineType, contour_generator

    padded = np.pad(mask, 1).astype(float)
    generator = contour_generator(z=padded.T, line_type=LineType.Separate)
    outlines = []
    for line in generator.lines(0.5):
        corners = np.asarray(line)[:-1] - 1  # the last corner is the first one
        steps = np.roll(corners, -1, axis=0) - corners
        outlines.append(corners[(steps != np.roll(steps, 1, axis=0)).any(1)])
    return outlines
