"""What Pillow does not check or keep of a PNG: checksums, surplus data, 16 bits of colours."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from segpipe.errors import DataError
from segpipe.io.apart import decoded
from segpipe.io.notes import warn
from segpipe.io.unpack import CHUNK, STREAM_ERRORS, Source, blocks, check_size, opened, regular_size
from segpipe.text import first_line

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
WHOLE = ((0, 0, 1, 1),)
# the seven pictures of an interlaced one: first column and row, and steps from there
INTERLACED = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)),
    (0, 1, 1, 2),
)


@dataclass(frozen=True)
class Header:
    """The first chunk of a PNG.

    Attributes:
        columns: number of columns.
        rows: number of rows.
        depth: bits per sample.
        colour: what the samples are, a key of `SAMPLES`.
        is_interlaced: whether the pixels come in seven passes.
    """

    columns: int
    rows: int
    depth: int
    colour: int
    is_interlaced: bool

    @property
    def is_deep_colour(self) -> bool:
        """Whether there are 16 bits in several samples, which Pillow would cut to 8."""
        return self.depth == 16 and SAMPLES.get(self.colour, 1) > 1

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of the pixels and of their filters, a byte each row."""
        bits = self.depth * SAMPLES.get(self.colour, 1)
        size = 0
        for left, top, right, down in INTERLACED if self.is_interlaced else WHOLE:
            columns = -(-(self.columns - left) // right)
            rows = -(-(self.rows - top) // down)
            if columns > 0 and rows > 0:
                size += rows * (1 + -(-columns * bits // 8))
        return size


@dataclass(frozen=True)
class Joined(Source):
    """Parts of a stream, as a file that gives one of them at a time."""

    parts: Iterator[bytes]

    def read(self, _size: int, /) -> bytes:
        """Return the next part; empty at the end."""
        return next(self.parts, b"")


def header_of(path: Path) -> Header:
    """Read the header.

    Raises:
        DataError: if the file is too short for one.
    """
    with opened(path) as file:
        start = file.read(29)
    if len(start) < 29:
        raise DataError(f"{path}: cannot be read as an image (it ends in its header)")
    columns, rows, depth, colour, _, _, passes = struct.unpack(">IIBBBBB", start[16:])
    return Header(columns, rows, depth, colour, passes == 1)


def check(path: Path) -> None:
    """Check the declared pixels against the file and the memory, and every checksum.

    Raises:
        DataError: if the pixels are fewer or more than the header declares, or damaged.
    """
    declared = header_of(path).unpacked_bytes
    check_size(path, regular_size(path), declared, "zlib")
    unpacked = 0
    with opened(path, len(SIGNATURE)) as file:
        try:
            for block in blocks(Joined(_pixel_parts(path, file)), "zlib"):
                unpacked += len(block)
                if unpacked > declared:
                    raise EOFError(f"they are more than the {declared} bytes of its header")
        except STREAM_ERRORS as error:
            raise DataError(
                f"{path}: its pixels are damaged ({first_line(error)}); get the file again"
            ) from None
    if unpacked < declared:
        raise DataError(f"{path}: holds fewer pixels than it declares; it is cut short")


def _pixel_parts(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Yield the packed pixels of all chunks, and read the file to its end.

    Raises:
        EOFError: if a checksum is wrong.
    """
    kind = b""
    while kind != b"IEND":
        start = file.read(8)
        if len(start) < 8:
            raise EOFError("the file ends early")
        length, kind = struct.unpack(">I4s", start)
        checksum = zlib.crc32(kind)
        while length > 0:
            part = file.read(min(length, CHUNK))
            if not part:
                raise EOFError("the file ends early")
            length -= len(part)
            checksum = zlib.crc32(part, checksum)
            if kind == b"IDAT":
                yield part
        if file.read(4) != struct.pack(">I", checksum):
            raise EOFError(f"the checksum of {kind!a} is wrong")
    rest = regular_size(path) - file.tell()
    if rest:
        warn(path, f"{rest} bytes after its end are left out")


def read_deep_colour(path: Path) -> np.ndarray:
    """Read a PNG of 16 bits and several samples, `(rows, columns, samples)`.

    Raises:
        DataError: if it cannot be decoded.
    """
    (array,) = decoded("png", str(path), [str(path)], header_of(path).unpacked_bytes)
    return array


def decode(name: str) -> Iterator[np.ndarray]:
    """Yield the samples of a PNG, in a process that may die.

    Raises:
        DataError: if they cannot be decoded.
    """
    import imagecodecs

    try:
        yield np.asarray(imagecodecs.png_decode(Path(name).read_bytes()))
    except imagecodecs.PngError as error:
        raise DataError(f"{name}: cannot be read as an image ({first_line(error)})") from None
