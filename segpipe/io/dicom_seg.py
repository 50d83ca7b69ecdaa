"""Segmentation objects of DICOM, laid on the grid of the scan that they segment.

Such an object holds a frame for each slice and segment in which there is something, so that its
frames alone are no volume.
"""

from pathlib import Path

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_file import guarded, is_dicom, read_dataset
from segpipe.io.dicom_frames import Frame, Header, open_header
from segpipe.io.dicom_pixels import read_values
from segpipe.io.dicom_tags import SEGMENTATIONS
from segpipe.io.notes import warn

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
OFF_GRID = 0.1  # voxels that a frame may lie beside the scan's


def is_segmentation(path: Path) -> bool:
    """Return whether a path is a DICOM file that holds a segmentation."""
    return path.is_file() and is_dicom(path) and open_header(path).kind in SEGMENTATIONS


def read_segmentation(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the segments as label ids, by their numbers, on the grid of a scan.

    Of a fractional segmentation what is at least half is inside.

    Args:
        path: of the DICOM file.
        shape: of the scan, `(x, y, z)`.
        affine: of the scan, to mm in RAS+.

    Raises:
        DataError: if it cannot be read, or does not lie on the scan's grid.
    """
    header = open_header(path)
    if not header.frames:
        raise DataError(f"{path}: is a segmentation without frames")
    values = _read_values(header)
    label = np.zeros(shape, np.int32)
    inside = values > 0
    if header.segmentation == "FRACTIONAL":
        inside = 2 * values.astype(np.int64) >= max(int(values.max()), 1)
    overlapping = 0
    for frame in header.frames:
        columns, rows = np.nonzero(inside[:, :, frame.index])
        place = _places(frame, columns, rows, shape, affine)
        ids = values[columns, rows, frame.index]
        if header.segmentation != "LABELMAP":
            ids = np.full(len(columns), frame.segment)
        overlapping += int(((label[place] != 0) & (label[place] != ids)).sum())
        label[place] = ids
    if overlapping:
        warn(path, f"{overlapping} voxels lie in several segments; the last segment counts")
    return label


def _read_values(header: Header) -> np.ndarray:
    """Return what the frames hold, `(columns, rows, frames)`."""
    data = read_dataset(header.path, header.native_bytes)
    with guarded(header.path):
        is_native = not data.file_meta.TransferSyntaxUID.is_encapsulated
        if data.BitsAllocated != 1 or not is_native:
            return read_values(header.frames)[0]
        packed = np.frombuffer(data.PixelData, np.uint8)
    # eight to a byte, across the ends of rows and frames, which pydicom cannot unpack one by one
    columns, rows = header.size
    bits = np.unpackbits(packed, bitorder="little")
    needed = columns * rows * header.count
    if len(bits) < needed:
        raise DataError(f"{header.path}: holds {len(bits)} of {needed} voxels")
    return bits[:needed].reshape(header.count, rows, columns).transpose(2, 1, 0)


def _places(
    frame: Frame, columns: np.ndarray, rows: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return the indices in the scan of pixels of a frame, an array for each axis."""
    if not frame.placed or frame.spacing is None:
        raise DataError(f"{frame.path}: {frame.name} has no position or pixel spacing")
    to_voxels = np.linalg.inv(affine)
    steps_mm = frame.rows * np.array(frame.spacing)[:, None]
    steps = to_voxels[:3, :3] @ (steps_mm * LPS_TO_RAS).T
    first = to_voxels[:3, :3] @ (frame.position * LPS_TO_RAS) + to_voxels[:3, 3]
    points = first[:, None] + steps @ np.stack([columns, rows])
    indices = np.rint(points).astype(np.int64)
    is_axis = np.allclose(np.sort(np.abs(steps), 0), [[0, 0], [0, 0], [1, 1]], atol=0.01)
    apart = float(np.abs(points - indices).max(initial=0))
    limits = np.array(shape)[:, None]
    if not is_axis or apart > OFF_GRID or (indices < 0).any() or (indices >= limits).any():
        raise DataError(
            f"{frame.path}: {frame.name} does not lie on the grid of the scan; segment that scan, "
            "or resample both to one grid"
        )
    return tuple(indices)
