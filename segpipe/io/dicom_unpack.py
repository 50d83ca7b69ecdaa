"""DICOM pixels as stored numbers; packed ones are unpacked in another process (`apart.py`)."""

import struct
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.io.apart import decoded
from segpipe.io.dicom_file import guarded, read_dataset
from segpipe.io.dicom_frames import Frame

NO_SIZE_MARKERS = (0xC4, 0xC8, 0xCC)  # among the markers that begin a JPEG frame
Request = tuple[str, list[int], int, int]  # a file, frames, frames that it holds, bytes unpacked


def unpack(requests: Sequence[Request]) -> Iterator[np.ndarray]:
    """Yield the stored numbers of frames, `(rows, columns)` or `(rows, columns, C)`.

    Raises:
        DataError: if they cannot be unpacked.
    """
    for name, indices, count, native_bytes in requests:
        path = Path(name)
        data = read_dataset(path, native_bytes)
        with guarded(path):
            shift = _prepare(data)
            syntax = data.file_meta.TransferSyntaxUID
            _check_decoder(path, syntax)
            if syntax.is_encapsulated:
                _check_codestreams(path, data, count)
            for image in _decode(path, data, indices, count):
                yield _look_up(data, image >> shift if shift else image)


def request_of(frames: Sequence[Frame]) -> Request:
    """Return what to unpack for some frames of one file."""
    header = frames[0].header
    indices = [frame.index for frame in frames]
    return str(header.path), indices, header.count, header.native_bytes


def unpack_apart(requests: Sequence[Request]) -> list[np.ndarray]:
    """Return what `unpack` yields, from another process, which may die.

    Raises:
        DataError: if they cannot be unpacked.
    """
    names = []
    size = 0
    for name, indices, _, native_bytes in requests:
        names += [name] * len(indices)
        size = max(size, native_bytes)
    return decoded("dicom", requests, names, size)


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
    from pydicom.pixels.decoders.base import get_decoder

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


def _decode(path: Path, data: Any, indices: list[int], count: int) -> Iterator[np.ndarray]:
    """Yield the numbers of some frames as they are stored.

    Raises:
        DataError: if they cannot be unpacked, with the package that might.
    """
    from pydicom.pixels.utils import iter_pixels, pixel_array

    size = (data.Rows, data.Columns)
    every = indices == list(range(count))
    try:
        if data.BitsAllocated == 1:
            # frames of bits begin inside a byte, where pydicom's iterator loses the last ones
            images = pixel_array(data).reshape(count, *size)[indices]
        else:
            images = iter_pixels(data, indices=None if every else indices)
        # a file may hold more frames than it declares
        for image in islice(images, len(indices)):
            if image.shape[:2] != size:
                raise DataError(f"{path}: unpacks to {image.shape[:2]}, not {size}")
            yield image
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        more = "" if find_spec("gdcm") else f"; if the file is intact, {_install()}"
        raise DataError(f"{path}: cannot be unpacked ({lines[-1].strip()}){more}") from None


def _look_up(data: Any, image: np.ndarray) -> np.ndarray:
    """Return what stored numbers stand for where the file holds a table of it."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        return apply_color_lut(image, data)
    if "ModalityLUTSequence" in data:
        return apply_modality_lut(image, data)
    return image


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
