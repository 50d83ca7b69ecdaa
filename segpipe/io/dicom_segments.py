"""DICOM segmentations as label maps: ids are the numbers of the segments."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_frames import Frame, Header
from segpipe.io.dicom_pixels import read_values
from segpipe.io.dicom_stacks import ROUNDED_MM, UNEVEN, Stack
from segpipe.io.dicom_tags import SEGMENTATIONS

OFF_VOXEL = 0.05  # voxels that a label may lie off another grid
KINDS = ("BINARY", "LABELMAP")


def is_segmentation(header: Header) -> bool:
    """Return whether a file is a segmentation."""
    return header.kind in SEGMENTATIONS


class LabelStack(Stack):
    """The frames of a segmentation: of each segment, only slices where it is found.

    Slices between them without a frame are background.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return (*self.first.header.size, int(self._slices.max()) + 1)

    @cached_property
    def _slices(self) -> np.ndarray:
        """The slice of each frame, from 0."""
        heights = _heights(self.frames)
        return np.rint((heights - heights.min()) / self._step_mm).astype(int)

    @cached_property
    def _step_mm(self) -> float:
        """The distance that is declared, or the smallest one between two slices, mm."""
        gaps = np.diff(np.unique(_heights(self.frames).round(3)))
        declared_mm = self.first.thickness or 1.0
        if not len(gaps):
            return declared_mm
        parts = gaps / declared_mm
        if self.first.thickness and np.abs(parts - np.rint(parts)).max() < UNEVEN:
            return declared_mm
        return float(gaps.min())

    def warnings(self) -> list[str]:
        """Return nothing: a slice without frames is no fault."""
        return []

    def _lowest(self) -> Frame:
        return self.frames[int(_heights(self.frames).argmin())]

    def _step(self) -> np.ndarray:
        return self.first.normal * self._step_mm

    def _check(self) -> None:
        """Check that the frames lie on one grid and name their segments."""
        header = self.first.header
        if header.segmentation not in KINDS:
            raise DataError(
                f"{header.path}: is a segmentation of type {header.segmentation or 'unknown'}; "
                f"segpipe reads {' and '.join(KINDS)}"
            )
        lowest = self._lowest()
        for frame, number in zip(self.frames, self._slices, strict=True):
            frame.check()
            if header.segmentation == "BINARY" and frame.segment < 1:
                raise DataError(f"{header.path}: frame {frame.index + 1} names no segment")
            even = lowest.position + number * self._step()
            turned = np.abs(frame.rows - lowest.rows).max() > 1e-3
            if turned or np.linalg.norm(frame.position - even) > ROUNDED_MM:
                raise DataError(f"{header.path}: its frames are not slices of one even stack")

    def labels(self) -> np.ndarray:
        """Read the label ids, `(x, y, z)`.

        Raises:
            DataError: if two segments share a voxel.
        """
        frames = read_values(self.frames)[0]
        binary = self.first.header.segmentation == "BINARY"
        highest = max(frame.segment for frame in self.frames) if binary else int(frames.max())
        found = np.zeros(self.shape, np.min_scalar_type(highest))
        for index, frame in enumerate(self.frames):
            ids = found[:, :, self._slices[index]]
            inside = frames[:, :, index] > 0
            new = frame.segment if binary else frames[:, :, index][inside]
            name = f"{frame.path}: segment {frame.segment} of frame {frame.index + 1}"
            merge_segment(ids, inside, new, name)
        return found


def merge_segment(ids: np.ndarray, inside: np.ndarray, new: int | np.ndarray, name: str) -> None:
    """Give voxels an id, in place.

    Args:
        ids: label ids.
        inside: the voxels, of the same shape.
        new: their id, or one for each of them.
        name: the name of the segment, for the message.

    Raises:
        DataError: if one has another id already.
    """
    shared = int(((ids[inside] > 0) & (ids[inside] != new)).sum())
    if shared:
        raise DataError(
            f"{name} shares {shared} voxels with others; a label map has one id per voxel"
        )
    ids[inside] = new


def ids_by_name(
    names: Mapping[int, str], labels: Mapping[str, int] | None, every: bool = True
) -> dict[int, int]:
    """Return the label id of each segment whose name is that of a label, by the segment's number.

    Args:
        names: the names of the segments, by their numbers.
        labels: name -> id.
        every: whether none is returned unless all segments have the names of labels.
    """
    known = {}
    for name, number in (labels or {}).items():
        known[name.strip().lower()] = number
    found = {}
    for number, name in names.items():
        if name.strip().lower() in known:
            found[number] = known[name.strip().lower()]
    return {} if every and len(found) < len(names) else found


def _heights(frames: Sequence[Frame]) -> np.ndarray:
    """Return where frames lie along their normal, mm."""
    return np.array([frame.position for frame in frames]) @ frames[0].normal


def on_grid(
    stack: LabelStack,
    shape: tuple[int, ...],
    affine: np.ndarray,
    labels: Mapping[str, int] | None = None,
) -> np.ndarray:
    """Return label ids on the grid of a scan, of which a segmentation covers a part.

    Args:
        stack: the geometry of the segmentation.
        shape: the shape of the scan, (x, y, z).
        affine: the affine of the scan, to mm in RAS+.
        labels: name -> id; where all segments have such names these tell their ids, else ids are
            the numbers of the segments.

    Raises:
        DataError: if a label lies between the scan's voxels, or outside.
    """
    segments = stack.labels()
    path = stack.first.path
    to_scan = np.linalg.inv(affine) @ stack.affine()
    sizes = np.linalg.norm(to_scan[:3, :3], axis=0)
    used = 2 if segments.shape[2] == 1 else 3
    places = np.array(np.nonzero(segments))
    exact = to_scan[:3, :3] @ places + to_scan[:3, 3:]
    nearest = np.rint(exact).astype(int)
    off = float(np.abs(exact - nearest).max(initial=0))
    if off > OFF_VOXEL or (np.abs(sizes - 1)[:used] > OFF_VOXEL).any():
        raise DataError(f"{path}: its voxels are not those of the scan; resample it to the scan")
    if places.size and ((nearest < 0) | (nearest >= np.reshape(shape, (3, 1)))).any():
        raise DataError(f"{path}: has labels outside of the scan {shape}")
    found = np.zeros(shape, segments.dtype)
    found[tuple(nearest)] = segments[tuple(places)]
    ids = ids_by_name(stack.first.header.segments, labels)
    unnamed = set(np.unique(found).tolist()) - {0, *ids}
    return found if unnamed or not ids else _renumbered(found, ids)


def _renumbered(segments: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    """Return numbers of segments as the ids that they stand for."""
    table = np.zeros(int(max(segments.max(), *ids)) + 1, np.min_scalar_type(max(ids.values())))
    for number, label in ids.items():
        table[number] = label
    return table[segments]
