"""Voxels as headers of text describe them: raw, packed or as digits, in one file or several."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np

from segpipe.errors import DataError
from segpipe.io.unpack import (
    CHUNK,
    Compression,
    allocated,
    check_size,
    opened,
    read_blocks,
    read_exactly,
    regular_size,
    unpacked_size,
)

Encoding = Literal[Compression, "text", "hex"]
LONGEST_SKIP = 2**20  # unpacked bytes before voxels; any number can be unpacked of a small file
LONGEST_WORD = 400  # digits of a number; of float64 in full it has some 330
LAST = -1  # as `skip`: the voxels are the last bytes


@dataclass(frozen=True)
class Stored:
    """Where voxels lie.

    Attributes:
        files: the files, in their order; each holds an equal part.
        axes: sizes, the one that changes fastest first.
        dtype: the type of a voxel, with its byte order.
        encoding: the encoding of each file.
        offset: bytes of each file before anything else.
        lines: lines to leave out after them.
        skip: bytes to leave out after those, unpacked ones of a packed file; or `LAST`.
    """

    files: list[Path]
    axes: list[int]
    dtype: np.dtype
    encoding: Encoding
    offset: int = 0
    lines: int = 0
    skip: int = 0

    @property
    def size(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.axes) * self.dtype.itemsize


def read_stored(stored: Stored) -> np.ndarray:
    """Read voxels in the machine's own byte order, with the axes of the header.

    Raises:
        DataError: if there are fewer than the header declares, or they are damaged.
    """
    part = stored.size // len(stored.files)
    if len(stored.files) == 1:
        content = _read_part(stored.files[0], stored, part)
    else:
        present = sum(map(regular_size, stored.files))
        check_size(stored.files[0], present, stored.size, _bound(stored))
        content = allocated(stored.files[0], stored.size)
        for number, file in enumerate(stored.files):
            content[number * part : (number + 1) * part] = _read_part(file, stored, part)
    voxels = content.view(stored.dtype).reshape(stored.axes, order="F")
    if not stored.dtype.isnative:
        voxels = voxels.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    return voxels


def _bound(stored: Stored) -> Compression:
    # a digit may stand for 8 bytes, which the ratio of gzip allows for
    return "gzip" if stored.encoding in ("text", "hex") else stored.encoding


def _read_part(file: Path, stored: Stored, size: int) -> np.ndarray:
    """Read the bytes of one file of the voxels."""
    offset = stored.offset + _bytes_of_lines(file, stored)
    skip = stored.skip
    encoding = stored.encoding
    if encoding == "text" or encoding == "hex":
        offset += skip
        check_size(file, regular_size(file) - offset, size, _bound(stored))
        decode = _hex_blocks if encoding == "hex" else partial(_text_blocks, dtype=stored.dtype)
        return read_blocks(file, offset, size, decode)
    if skip == LAST and encoding == "none":
        return read_exactly(file, max(regular_size(file) - size, 0), size)
    if encoding != "none" and skip > LONGEST_SKIP:
        raise DataError(f"{file}: its voxels are said to begin after {skip} unpacked bytes")
    if skip == LAST:
        check_size(file, regular_size(file) - offset, size, encoding)
        skip = max(unpacked_size(file, offset, encoding, size + LONGEST_SKIP) - size, 0)
    return read_exactly(file, offset, size, encoding, skip)


def _bytes_of_lines(file: Path, stored: Stored) -> int:
    """Return the bytes of the lines to leave out.

    Raises:
        DataError: if there are not so many.
    """
    if not stored.lines:
        return 0
    with opened(file, stored.offset) as content:
        lines = 0
        while lines < stored.lines:
            line = content.readline(CHUNK)
            lines += line.endswith(b"\n")
            if not line:
                raise DataError(
                    f"{file}: has {lines} lines where {stored.lines} are to be left out"
                )
        return content.tell() - stored.offset


def _words(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Yield the words of a text, separated by spaces or commas, as many as come at once.

    Raises:
        ValueError: if a word has no end.
    """
    rest = b""
    while chunk := file.read(CHUNK):
        words = (rest + chunk + b"|").replace(b",", b" ").split()
        rest = words.pop()[:-1]
        if len(rest) > LONGEST_WORD:
            raise ValueError("a number does not end")
        yield words
    yield rest.split()


def _text_blocks(file: IO[bytes], dtype: np.dtype) -> Iterator[bytes]:
    """Yield the voxels of a text of numbers.

    Raises:
        ValueError: if a word is no number of this type.
    """
    convert = float if dtype.kind == "f" else int
    for words in _words(file):
        if any(b"_" in word for word in words):  # which Python takes for digits
            raise ValueError("it holds something else than numbers")
        try:
            yield np.fromiter(map(convert, words), dtype).tobytes()
        except OverflowError as error:
            raise ValueError(str(error)) from None


def _hex_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes that pairs of hexadecimal digits stand for.

    Raises:
        ValueError: if there is anything else.
    """
    rest = b""
    while chunk := file.read(CHUNK):
        digits = rest + b"".join(chunk.split())
        even = len(digits) - len(digits) % 2
        rest = digits[even:]
        yield bytes.fromhex(digits[:even].decode("ascii"))
    if rest:
        raise ValueError("the last digit has no partner")
