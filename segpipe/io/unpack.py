"""Voxels of a file, never more of them than its header declares.

A small file can unpack to any size, and a small header can declare any. So a number of bytes is
compared with the file and with the memory before memory is taken, unpacking stops where the header
says, and a stream is read to its end, where its checksum lies.
"""

import bz2
import logging
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, Protocol, runtime_checkable

import numpy as np

from segpipe.errors import DataError
from segpipe.memory import available_bytes
from segpipe.text import first_line

log = logging.getLogger("segpipe")

Compression = Literal["none", "gzip", "zlib", "bzip2"]
CHUNK = 2**18  # bytes that are read or unpacked at once
PADDING = 2**12  # bytes after the voxels that a writer may have filled a block with
# most bytes that one byte unpacks to: deflate has 258 bytes in 2 bits; bzip2 has 46.6 MB of equal
# bytes in a block of 38 bytes
LARGEST_RATIO: dict[Compression, int] = {"none": 1, "gzip": 1032, "zlib": 1032, "bzip2": 1_250_000}
MAGIC: dict[Compression, bytes] = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}
STREAM_ERRORS = (zlib.error, OSError, EOFError, ValueError)


@runtime_checkable
class Source(Protocol):
    """What a stream is read from, such as an open file."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; none at the end."""
        ...


def read_exactly(
    path: Path, offset: int, size: int, compression: Compression = "none", skip: int = 0
) -> np.ndarray:
    """Read bytes of a file, unpacked, as an array of `uint8` `(size,)` that may be written to.

    Args:
        path: a regular file.
        offset: bytes of the file before the voxels, or before the packed stream.
        size: bytes of all voxels, unpacked.
        compression: how the stream is packed; its checksum is read.
        skip: unpacked bytes of the stream before the voxels.

    Raises:
        DataError: if the file holds fewer bytes, or packs more of them; if a checksum is wrong; if
            they do not fit the memory.
    """
    present = regular_size(path) - offset
    check_size(path, present, skip + size, compression)
    if compression != "none":
        return read_blocks(path, offset, size, partial(blocks, compression=compression), skip)
    excess = present - skip - size
    if excess > PADDING or not _ends_in_zeros(path, excess):
        log.warning("%s: %d bytes after the voxels are left out", path, excess)
    return read_blocks(path, offset + skip, size, partial(_raw_blocks, size=size))


def _ends_in_zeros(path: Path, count: int) -> bool:
    """Return whether the last bytes of a file are zeros, as those that fill a block are."""
    with opened(path, regular_size(path) - count) as file:
        return not file.read(count).strip(b"\0")


def read_blocks(
    path: Path,
    offset: int,
    size: int,
    decode: Callable[[IO[bytes]], Iterable[bytes]],
    skip: int = 0,
) -> np.ndarray:
    """Read bytes of a file as an array of `uint8` `(size,)`, through a function that decodes it.

    Args:
        path: a regular file whose size has been checked.
        offset: bytes of the file before those to decode.
        size: bytes to return.
        decode: yields blocks of an open file; it raises an `EOFError`, `OSError`, `ValueError` or
            `zlib.error` where the file is damaged.
        skip: decoded bytes to leave out before them.

    Raises:
        DataError: if the file is damaged, holds fewer bytes or more, or they do not fit the memory.
    """
    content = allocated(path, size)
    with opened(path, offset) as file:
        try:
            filled = _fill(content.data, skip, decode(file))
        except STREAM_ERRORS as error:
            raise _damaged(path, error) from None
    if filled != size:
        raise DataError(
            f"{path}: holds {filled} bytes of voxels where its header declares {size}; "
            "the file is cut short, get it again"
        )
    return content


def unpacked_size(path: Path, offset: int, compression: Compression, most: int) -> int:
    """Return the bytes that a stream unpacks to, at most `most`.

    Raises:
        DataError: if it is damaged or holds more.
    """
    size = 0
    with opened(path, offset) as file:
        try:
            for block in blocks(file, compression):
                size += len(block)
                if size > most:
                    raise EOFError(f"they are more than the {most} bytes that are expected")
        except STREAM_ERRORS as error:
            raise _damaged(path, error) from None
    return size


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: its voxels are damaged ({first_line(error)}); get the file again")


@contextmanager
def opened(path: Path, offset: int = 0) -> Iterator[IO[bytes]]:
    """Open a regular file to read bytes from an offset.

    Raises:
        DataError: if it is none, or the system does not let it be read.
    """
    regular_size(path)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def regular_size(path: Path) -> int:
    """Return the size of a regular file in bytes, without opening it.

    Raises:
        DataError: if there is none: opening a pipe would wait, and a device has no end.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: no such file ({reason})") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is no regular file")
    return found.st_size


def check_size(path: Path, packed: int, size: int, compression: Compression) -> None:
    """Check a declared number of bytes before memory is taken for it.

    Args:
        path: the file, for the message.
        packed: bytes that the file has for them.
        size: bytes that the header declares.
        compression: the way in which they are packed.

    Raises:
        DataError: if so few bytes cannot unpack to so many, or they do not fit the memory.
    """
    if size > max(packed, 0) * LARGEST_RATIO[compression]:
        raise DataError(
            f"{path}: the header declares {size} bytes of voxels, and the file has {max(packed, 0)}"
            f"{'' if compression == 'none' else f' packed by {compression}'}; "
            "it is cut short or damaged, get it again"
        )
    if size > available_bytes():
        raise _too_large(path, size)


def allocated(path: Path, size: int) -> np.ndarray:
    """Return an array of `uint8` `(size,)` for the voxels of a file, not yet filled.

    Raises:
        DataError: if there is no memory for it.
    """
    try:
        return np.empty(size, np.uint8)
    except (MemoryError, ValueError):  # the latter beyond the machine's addresses
        raise _too_large(path, size) from None


def _too_large(path: Path, size: int) -> DataError:
    return DataError(
        f"{path}: the header declares {size} bytes of voxels, and {available_bytes()} bytes of "
        "memory are free; cut it into smaller ones, or use a machine with more memory"
    )


def _fill(content: memoryview, skip: int, decoded: Iterable[bytes]) -> int:
    """Fill memory with decoded bytes, and return how many there were.

    What comes before the content (`skip` bytes) is dropped, and so are zeros after it (`PADDING`).

    Raises:
        EOFError: if anything else follows.
    """
    end = skip + len(content)
    position = 0
    for block in decoded:
        first = max(position, skip)
        last = min(position + len(block), end)
        if first < last:
            content[first - skip : last - skip] = block[first - position : last - position]
        position += len(block)
        if position > end + PADDING or any(block[max(len(block) - position + end, 0) :]):
            raise EOFError(f"they are more than the {end} bytes that the header declares")
    return max(min(position, end) - skip, 0)


def _raw_blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the next bytes of a file, `size` at most."""
    while block := file.read(min(CHUNK, size)):
        yield block
        size -= len(block)


def blocks(file: Source, compression: Compression) -> Iterator[bytes]:
    """Yield what a stream unpacks to, in blocks of `CHUNK` bytes at most.

    Streams may follow each other, as bgzip and pbzip2 write them, and zeros may follow the last.

    Raises:
        EOFError: if a stream is cut short, or something else follows.
    """
    packed = file.read(CHUNK)
    while True:
        stream = _new_stream(compression)
        yield from _blocks_of_one(stream, packed, file)
        packed = stream.unused_data
        while not packed.strip(b"\0"):
            packed = file.read(CHUNK)
            if not packed:
                return
        packed = packed.lstrip(b"\0") + file.read(CHUNK)
        if not packed.startswith(MAGIC.get(compression, ())):
            raise EOFError("something else follows their stream")


def _new_stream(compression: Compression) -> Any:
    if compression == "bzip2":
        return bz2.BZ2Decompressor()
    # with 32, a stream of zlib may have gzip's header instead, as MetaImage's own readers take it
    return zlib.decompressobj(zlib.MAX_WBITS + (16 if compression == "gzip" else 32))


def _blocks_of_one(stream: Any, packed: bytes, file: Source) -> Iterator[bytes]:
    """Yield what one stream unpacks to; its checksum is compared at its end."""
    while True:
        block = stream.decompress(packed, CHUNK)
        yield block
        if stream.eof:
            return
        # zlib returns the input that it has not used, bzip2 keeps it
        packed = getattr(stream, "unconsumed_tail", b"")
        if not packed and getattr(stream, "needs_input", True):
            packed = file.read(CHUNK)
            if not packed and not block:
                raise EOFError("their stream ends early")
