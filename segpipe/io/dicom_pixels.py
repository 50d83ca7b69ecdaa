"""The values of DICOM frames: unpacked by pydicom, rescaled frame by frame."""

import hashlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_file import guarded, read_dataset
from segpipe.io.dicom_frames import Frame, open_header

LARGEST_WHOLE = 2.0**31  # slopes and intercepts beyond it are computed as floats
NO_SIZE_MARKERS = (0xC4, 0xC8, 0xCC)  # among the markers that begin a JPEG frame


def read_values(frames: Sequence[Frame]) -> np.ndarray:
    """Read the values of frames of one size: `(C, x, y, z)`, frame by frame along z.

    Whole numbers get the smallest integer type that holds all of them, others float64, so that
    they equal `pydicom.pixels.apply_modality_lut`.

    Raises:
        DataError: if the pixels cannot be read.
    """
    images = []
    for _, part in itertools.groupby(frames, lambda frame: frame.path):
        images.extend(_read_file(list(part)))
    dtype = np.result_type(*{image.dtype for image in images})
    if np.issubdtype(dtype, np.integer):
        dtype = _smallest_type(min(map(np.min, images)), max(map(np.max, images)))
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{frames[0].path}: its slices have the shapes {sorted(shapes)}")
    stacked = np.stack([image.astype(dtype, copy=False) for image in images])
    return stacked.reshape(*stacked.shape[:3], -1).transpose(3, 2, 1, 0)


def digest(frame: Frame) -> bytes:
    """Return a digest of a frame's values; it is kept until the file changes."""
    status = frame.path.stat()
    return _digest(frame.path, frame.index, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2**14)
def _digest(path: Path, index: int, _changed_ns: int, _size: int) -> bytes:
    values = next(_read_file([open_header(path).frames[index]]))
    return hashlib.blake2b(values.tobytes() + str(values.dtype).encode()).digest()


def _read_file(frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """Yield the values `(rows, columns)` or `(rows, columns, C)` of some frames of one file.

    Raises:
        DataError: if they cannot be unpacked.
    """
    header = frames[0].header
    for frame in frames:
        frame.check()
    data = read_dataset(header.path, header.native_bytes)
    with guarded(header.path):
        shift = _prepare(data)
        syntax = data.file_meta.TransferSyntaxUID
        _check_decoder(header.path, syntax)
        if syntax.is_encapsulated:
            _check_codestreams(header.path, data, header.count)
        images = _unpack(data, frames)
        for frame, image in zip(frames, images, strict=True):
            yield _rescale(data, frame, image >> shift if shift else image)


def _prepare(data: Any) -> int:
    """Complete what pydicom needs to unpack; return by how many bits the numbers are shifted."""
    from pydicom import uid

    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        syntax = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else syntax
    if "PixelData" not in data:
        return 0
    data.setdefault("PhotometricInterpretation", "MONOCHROME2")
    data.setdefault("SamplesPerPixel", 1)
    data.setdefault("PixelRepresentation", 0)
    stored = int(data.get("BitsStored") or data.BitsAllocated)
    top = int(data.get("HighBit") or stored - 1) + 1
    shift = top - stored
    if not 0 < shift < 64 or top > data.BitsAllocated:
        data.BitsStored = stored
        return 0
    data.BitsStored = top  # pydicom takes the stored bits for the lowest ones
    return shift


def _check_decoder(path: Path, syntax: Any) -> None:
    """Check that something can unpack a transfer syntax.

    Raises:
        DataError: with the package to install.
    """
    from pydicom.pixels import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise DataError(
            f"{path}: is packed as {syntax.name}, which pydicom cannot unpack; "
            "convert it, e.g. with gdcmconv --raw"
        ) from None
    if not available:
        raise DataError(f"{path}: is packed as {syntax.name}; to read it, {_install()}")


def _install() -> str:
    return 'pip install "segpipe[dicom]" (python-gdcm, pylibjpeg-openjpeg)'


def _unpack(data: Any, frames: Sequence[Frame]) -> list[np.ndarray]:
    """Return the stored numbers of some frames.

    Raises:
        DataError: if they cannot be unpacked, with the package that might.
    """
    from pydicom.pixels import iter_pixels

    header = frames[0].header
    indices = [frame.index for frame in frames]
    if indices == list(range(header.count)):
        indices = None
    try:
        images = list(iter_pixels(data, indices=indices))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        more = "" if find_spec("gdcm") else f"; if the file is intact, {_install()}"
        raise DataError(f"{header.path}: cannot be unpacked ({lines[-1].strip()}){more}") from None
    columns, rows = header.size
    if images[0].shape[:2] != (rows, columns):
        raise DataError(f"{header.path}: unpacks to {images[0].shape[:2]}, not {(rows, columns)}")
    return images


def _rescale(data: Any, frame: Frame, image: np.ndarray) -> np.ndarray:
    """Return stored numbers as values, in the smallest type that holds them."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        return apply_color_lut(image, data)
    if "ModalityLUTSequence" in data:
        return _smallest(apply_modality_lut(image, data))  # a table's entries are whole numbers
    slope, intercept = frame.slope, frame.intercept
    if not np.issubdtype(image.dtype, np.integer):
        return image if (slope, intercept) == (1, 0) else image * slope + intercept
    whole = slope.is_integer() and intercept.is_integer() and image.dtype.itemsize <= 4
    if not whole or max(abs(slope), abs(intercept)) >= LARGEST_WHOLE:
        return image.astype(np.float64) * slope + intercept
    if (slope, intercept) == (1, 0):
        return _smallest(image)
    return _smallest(image.astype(np.int64) * int(slope) + int(intercept))


def _smallest(image: np.ndarray) -> np.ndarray:
    """Return whole numbers in the smallest type that holds them."""
    return image.astype(_smallest_type(image.min(), image.max()))


def _smallest_type(low: Any, high: Any) -> np.dtype:
    """Return the smallest type of whole numbers from `low` to `high`."""
    return np.result_type(np.min_scalar_type(int(low)), np.min_scalar_type(int(high)))


def _check_codestreams(path: Path, data: Any, count: int) -> None:
    """Check that packed frames have the header's size before a decoder takes memory for them.

    Raises:
        DataError: if one has not.
    """
    from pydicom.encaps import generate_frames

    for content in generate_frames(data.PixelData, number_of_frames=count):
        size = _codestream_size(content)
        if size not in (None, (data.Columns, data.Rows)):
            raise DataError(
                f"{path}: holds a packed image of {size[0]}x{size[1]} pixels, "
                f"its header says {data.Columns}x{data.Rows}"
            )


def _codestream_size(content: bytes) -> tuple[int, int] | None:
    """Return columns and rows of a JPEG, JPEG-LS or JPEG 2000 image; None if they are unknown."""
    start = content.find(b"\xff\x4f\xff\x51", 0, 1024)
    if start >= 0 and len(content) >= start + 24:
        width, height, left, top = struct.unpack(">4I", content[start + 8 : start + 24])
        return width - left, height - top
    place = 2 if content.startswith(b"\xff\xd8") else len(content)
    while place + 9 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        length, _, rows, columns = struct.unpack(">HBHH", content[place + 2 : place + 9])
        begins_frame = 0xC0 <= marker <= 0xCF and marker not in NO_SIZE_MARKERS
        if begins_frame or marker == 0xF7:
            return (columns, rows) if rows else None
        place += 2 + length
    return None
