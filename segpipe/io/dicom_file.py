"""One DICOM file, read by pydicom behind bounds: its header, and its data set with the pixels."""

import io
import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segpipe.errors import DataError
from segpipe.text import first_line

ENDINGS = (".dicom", ".dcm", ".ima")
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT = "1.2.840.10008.1.2.1"
PREAMBLE = 128
MAGIC = b"DICM"
LARGEST_HEADER = 2**26  # bytes; a deflated data set with more before its pixels must be a bomb
ITEM = b"\xfe\xff\x00\xe0"  # the tag of an item, little-endian as enhanced files are
MOST_ITEMS = 250_000  # 10,000 frames of 25 items


def import_pydicom() -> Any:
    """Import pydicom, which takes a third of a second, and keep its log off the screen."""
    import pydicom

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its first bytes; anything but a readable file is not."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as content:
            head = content.read(PREAMBLE + len(MAGIC) + 12)
    except (OSError, ValueError):
        return False
    return head[PREAMBLE:].startswith(MAGIC) or _begins_with_element(head)


def only_file(path: Path) -> Path:
    """Return the only visible file of a folder; whatever else a path names stays as it is."""
    if not path.is_dir():
        return path
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return path / names[0] if len(names) == 1 else path


def _begins_with_element(head: bytes) -> bool:
    """Return whether a file without preamble begins with an element of group 2 or 8."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element, kind, length = struct.unpack(f"{order}HH2sH", head[:8])
        if group not in (2, 8) or element > 0x18:
            continue
        implicit = struct.unpack(f"{order}I", head[4:8])[0]
        if kind in (b"UL", b"UI", b"CS", b"OB", b"SH", b"DA", b"TM", b"SQ"):
            return length <= 1024
        return implicit <= 1024
    return False


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn whatever pydicom and its decoders raise on a damaged file into one line.

    They raise nearly every type of error, so this is a boundary where all are caught; warnings
    speak of deviations from the standard that change no voxel.

    Raises:
        DataError: with the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        reason = first_line(error)[:200]
        if isinstance(error, TypeError | AttributeError | LookupError):  # a reader tripped over it
            reason = "its content is damaged"
        raise DataError(f"{path}: cannot be read as DICOM ({reason})") from None


class Bounded(io.BufferedReader):
    """A file of which no read asks for more bytes than it has, whatever a length field claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:  # noqa: D102
        if size is None or size < 0 or size > self.bytes:
            size = self.bytes
        return super().read(size)


def read_header(path: Path, keywords: tuple[str, ...]) -> tuple[Any, int]:
    """Read some elements of a file, up to its pixels.

    Args:
        path: the file.
        keywords: the keywords of the elements.

    Returns:
        The data set, and the number of bytes from the element of the pixels to the file's end; 0
        where it has no pixels.

    Raises:
        DataError: if it cannot be read.
    """
    pydicom = import_pydicom()
    tags = list(keywords)
    with guarded(path), _open(path, LARGEST_HEADER) as (content, size):
        header = pydicom.dcmread(content, force=True, stop_before_pixels=True, specific_tags=tags)
        return header, size - content.tell()


def read_dataset(path: Path, pixel_bytes: int) -> Any:
    """Read a whole file.

    Args:
        path: the file.
        pixel_bytes: the bytes that a native image of this header has; a deflated file is unpacked
            that far.

    Raises:
        DataError: if it cannot be read.
    """
    with guarded(path), _open(path, LARGEST_HEADER + pixel_bytes) as (content, _):
        return import_pydicom().dcmread(content, force=True)


def read_without_pixels(path: Path) -> Any:
    """Read all elements of a file but its pixels.

    Raises:
        DataError: if it cannot be read.
    """
    with guarded(path), _open(path, LARGEST_HEADER) as (content, _):
        return import_pydicom().dcmread(content, force=True, stop_before_pixels=True)


@contextmanager
def _open(path: Path, limit: int) -> Iterator[tuple[Any, int]]:
    """Open a file as it is, or a deflated one unpacked to `limit` bytes; with the size in bytes."""
    if not is_dicom(path):
        raise DataError(f"{path}: {_why_not(path)}")
    with Bounded(path) as content:
        packed = _deflated_part(content)
        if packed is None:
            if content.bytes > len(ITEM) * MOST_ITEMS:
                _check_items(path, content)
            yield content, content.bytes
            return
        content.seek(packed)
        unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content.read(), limit)
        body = _explicit_meta() + unpacked
        # what lies beyond the limit is not read; a deflated header promises no size
        inflated = io.BytesIO(body)
        _check_items(path, inflated)
        yield inflated, len(body)


def _check_items(path: Path, content: Any) -> None:
    """Check that a file does not hold more items of sequences than pydicom can take in.

    Raises:
        DataError: if it does; each takes 8 bytes of the file, and more than 1 kB of memory.
    """
    found = 0
    while chunk := content.read(2**22):
        found += chunk.count(ITEM)
    content.seek(0)
    if found > MOST_ITEMS:
        raise DataError(f"{path}: holds {found} items of sequences; it must be damaged")


def stem_of(file: Path) -> str:
    """Return a file's name without the ending of DICOM files; its dots may be those of a UID."""
    ends = [ending for ending in ENDINGS if file.name.lower().endswith(ending)]
    return file.name[: -len(ends[0])] if ends else file.name


def _why_not(path: Path) -> str:
    """Return why a file cannot be read as DICOM."""
    if not path.exists():
        return "no such file"
    if not path.is_file():
        return "is not a regular file"
    if not os.access(path, os.R_OK):
        return "may not be read (permissions)"
    return f"is not a DICOM file; {path.stat().st_size} bytes"


def _deflated_part(content: Bounded) -> int | None:
    """Return where the deflated data set of a file begins; None if it is not deflated."""
    from pydicom.filereader import read_file_meta_info

    head = content.read(PREAMBLE + 4096)
    content.seek(0)
    if DEFLATED.encode() not in head or not head[PREAMBLE:].startswith(MAGIC):
        return None
    meta = read_file_meta_info(content.name)
    content.seek(0)
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return None
    group_length = struct.unpack("<I", head[PREAMBLE + 12 : PREAMBLE + 16])[0]
    return PREAMBLE + 16 + group_length


def _explicit_meta() -> bytes:
    """Return a preamble and the meta information of an explicit, little-endian data set."""
    uid = EXPLICIT.encode() + b"\0" * (len(EXPLICIT) % 2)
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element))
    return bytes(PREAMBLE) + MAGIC + length + element
