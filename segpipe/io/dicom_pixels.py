"""The values of DICOM frames: unpacked by pydicom, rescaled frame by frame."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_file import guarded, read_dataset
from segpipe.io.dicom_frames import Frame, open_header
from segpipe.io.dicom_unpack import request_of, unpack, unpack_apart

LARGEST_WHOLE = 2.0**31  # slopes and intercepts beyond it are computed as floats


def read_values(frames: Sequence[Frame]) -> np.ndarray:
    """Read the values of frames of one size: `(C, x, y, z)`, frame by frame along z.

    Whole numbers get the smallest integer type that holds all of them, others float64, so that
    they equal `pydicom.pixels.apply_modality_lut`.

    Raises:
        DataError: if the pixels cannot be read.
    """
    images = list(_read_images(frames))
    dtype = np.result_type(*{image.dtype for image in images})
    if np.issubdtype(dtype, np.integer):
        dtype = _smallest_type(min(map(np.min, images)), max(map(np.max, images)))
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{frames[0].path}: its slices have the shapes {sorted(shapes)}")
    stacked = np.empty((len(images), *images[0].shape), dtype)
    for number, image in enumerate(images):
        stacked[number] = image
    return stacked.reshape(*stacked.shape[:3], -1).transpose(3, 2, 1, 0)


def digest(frame: Frame) -> bytes:
    """Return a digest of a frame's values, or of its packed pixels; kept until the file changes."""
    status = frame.path.stat()
    return _digest(frame.path, frame.index, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2**14)
def _digest(path: Path, index: int, _changed_ns: int, _size: int) -> bytes:
    frame = open_header(path).frames[index]
    if not frame.header.packed:
        (values,) = _read_images([frame])
        return hashlib.blake2b(values.tobytes() + str(values.dtype).encode()).digest()
    from pydicom.encaps import get_frame

    data = read_dataset(path, 0)
    with guarded(path):
        packed = get_frame(data.PixelData, index, number_of_frames=frame.header.count)
    return hashlib.blake2b(packed + f"{frame.slope} {frame.intercept}".encode()).digest()


def _read_images(frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """Yield the values `(rows, columns)` or `(rows, columns, C)` of some frames.

    Raises:
        DataError: if they cannot be unpacked.
    """
    requests = []
    for frame in frames:
        frame.check()
    for _, part in itertools.groupby(frames, lambda frame: frame.path):
        requests.append(request_of(list(part)))
    packed = any(frame.header.packed for frame in frames)
    images = unpack_apart(requests) if packed else unpack(requests)
    for frame, image in zip(frames, images, strict=True):
        yield _rescale(frame, image)


def _rescale(frame: Frame, image: np.ndarray) -> np.ndarray:
    """Return stored numbers as values, in the smallest type that holds them."""
    slope, intercept = frame.slope, frame.intercept
    unchanged = (slope, intercept) == (1, 0)
    if not np.issubdtype(image.dtype, np.integer):
        return image if unchanged else image * slope + intercept
    whole = slope.is_integer() and intercept.is_integer() and image.dtype.itemsize <= 4
    if not whole or max(abs(slope), abs(intercept)) >= LARGEST_WHOLE:
        return image.astype(np.float64) * slope + intercept
    if unchanged:
        return _smallest(image)
    return _smallest(image.astype(np.int64) * int(slope) + int(intercept))


def _smallest(image: np.ndarray) -> np.ndarray:
    """Return whole numbers in the smallest type that holds them."""
    return image.astype(_smallest_type(image.min(), image.max()))


def _smallest_type(low: Any, high: Any) -> np.dtype:
    """Return the smallest type of whole numbers from `low` to `high`, which int64 holds.

    It is never uint64, which becomes floating point beside a slice with negative numbers.
    """
    if low >= 0:
        found = np.min_scalar_type(int(high))
        return np.dtype(np.int64) if found == np.uint64 else found
    return np.min_scalar_type(min(int(low), -1 - int(high)))
