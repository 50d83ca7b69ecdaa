"""MetaImage files (`.mha`, `.mhd`), read as ITK reads them."""

import logging
import math
import re
from pathlib import Path

import numpy as np

from segpipe.io.nifti import check_header
from segpipe.io.stored import LAST, Encoding, Stored, read_stored
from segpipe.io.text_header import (
    TextHeader,
    following_names,
    header_and,
    listed_files,
    read_lines,
    shown,
    to_nifti,
    without_trailing_ones,
)

log = logging.getLogger("segpipe")

ENDINGS = (".mha", ".mhd")
SEPARATOR = re.compile("[=:]")
LAST_KEY = "ElementDataFile"
# long has 4 bytes in every file, whatever it has on the machine
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
ORIGIN = ("Offset", "Position", "Origin")
DIRECTION = ("TransformMatrix", "Rotation", "Orientation")
SPACING = ("ElementSpacing", "ElementSize")
RESCALING = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}
KEYS = {
    "NDims",
    "DimSize",
    "ElementType",
    "ElementNumberOfChannels",
    LAST_KEY,
    "HeaderSize",
    "BinaryData",
    "CompressedData",
    "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB",
    "DistanceUnits",
    *ORIGIN,
    *DIRECTION,
    *SPACING,
    *RESCALING,
}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)` and the affine to mm in RAS+."""
    header = _read_header(path)
    shape, affine = _grid(header)
    check_header(path, shape, affine)
    for key, neutral in RESCALING.items():
        if key in header.fields and header.numbers(key, 1, float) != [neutral]:
            log.warning("%s: its %s is not applied, as ITK has it", path, key)
    voxels = read_stored(_stored(header))
    return voxels.reshape(-1, *shape, order="F"), affine


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine to mm in RAS+, from the header alone."""
    return _grid(_read_header(path))


def files(path: Path) -> list[Path]:
    """Return all files that the voxels come from, the header first."""
    return header_and(path, _stored(_read_header(path)).files)


def _read_header(path: Path) -> TextHeader:
    """Read the lines up to the one that says where the voxels are, and a list of files after it.

    Raises:
        DataError: if a line is no `key = value`, or a key stands twice.
    """
    header = TextHeader(path, {}, 0)
    lines = read_lines(path)
    for number, (line, end) in enumerate(lines, 1):
        separator = SEPARATOR.search(line)
        if separator is None:
            if line.strip():
                raise header.error(f"cannot be read as MetaImage: line {number} is {shown(line)}")
            continue
        key = line[: separator.start()].strip()
        value = line[separator.end() :].strip()
        if key in KEYS and header.fields.setdefault(key, value) != value:
            raise header.error(f"cannot be read: its header has two values of {key}")
        if key == LAST_KEY:
            names = following_names(lines) if value.split()[:1] == ["LIST"] else []
            return TextHeader(path, header.fields, end, names)
    raise header.error(f"cannot be read as MetaImage: its header has no {LAST_KEY}")


# what overflows is infinite or undefined, and refused as such
@np.errstate(all="ignore")
def _grid(header: TextHeader) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape `(x, y, z)` and the affine to mm in RAS+.

    Raises:
        DataError: if it is no volume with one affine.
    """
    axes = header.axes("NDims", "DimSize")
    count = len(axes)
    spacing = np.ones(count)
    direction = np.eye(count)
    origin = np.zeros(count)
    if key := _first_of(header, SPACING):
        spacing = np.array(header.numbers(key, count, float))
    if key := _first_of(header, DIRECTION):
        # each axis has a row of its own
        direction = np.array(header.numbers(key, count**2, float)).reshape(count, count).T
    if key := _first_of(header, ORIGIN):
        origin = np.array(header.numbers(key, count, float))
    unit = header.unit_mm(header.fields.get("DistanceUnits", "").lower().split())
    shape, kept = without_trailing_ones(header, axes)
    affine = to_nifti((direction * spacing)[:kept, :kept] * unit, origin[:kept] * unit)
    return shape, affine


def _first_of(header: TextHeader, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in header.fields), None)


def _stored(header: TextHeader) -> Stored:
    """Return where the voxels lie, channels first.

    Raises:
        DataError: if the header does not say so, or names files that are not its own.
    """
    axes = [header.whole("ElementNumberOfChannels", 1), *header.axes("NDims", "DimSize")]
    if axes[0] < 1:
        raise header.error(f"its ElementNumberOfChannels is {axes[0]}, and must be positive")
    name = header.text(LAST_KEY)
    local = name.upper() == "LOCAL"
    files = [header.path] if local else listed_files(header, name, math.prod(axes))
    encoding = _encoding(header)
    skip = header.whole("HeaderSize", 0)
    if skip < LAST or (skip == LAST and encoding != "none"):
        raise header.error(f"its HeaderSize is {skip}; it must be the bytes before the voxels")
    # a positive one is counted from the start of the file, a packed stream begins after it
    offset = header.end if local and skip <= 0 else max(skip, 0)
    return Stored(files, axes, _dtype(header), encoding, offset, skip=min(skip, 0))


def _encoding(header: TextHeader) -> Encoding:
    if not _is_true(header, "BinaryData", True):
        return "text"
    # the declared size of the stream is not needed: the stream knows where it ends
    return "zlib" if _is_true(header, "CompressedData", False) else "none"


def _dtype(header: TextHeader) -> np.dtype:
    """Return the type of a voxel.

    Raises:
        DataError: if it is no number.
    """
    name = header.text("ElementType").removesuffix("_ARRAY")
    if name not in TYPES:
        known = ", ".join(TYPES)
        raise header.error(f"its ElementType is {shown(name)}; segpipe reads {known}")
    big = any(_is_true(header, f"{key}ByteOrderMSB", False) for key in ("BinaryData", "Element"))
    return np.dtype(TYPES[name]).newbyteorder(">" if big else "<")


def _is_true(header: TextHeader, key: str, default: bool) -> bool:
    """Return a truth value, which ITK tells by its first letter."""
    value = header.fields.get(key)
    return default if value is None else value[:1] in ("T", "t", "1")
