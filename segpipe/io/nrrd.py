"""NRRD files (`.nrrd`, `.nhdr`), read as ITK reads them, and some that it cannot read."""

import math
import re
from pathlib import Path
from typing import Literal

import numpy as np

from segpipe.io.nifti import check_header
from segpipe.io.nrrd_grid import channel_axis, grid
from segpipe.io.stored import LAST, Encoding, Stored, read_stored
from segpipe.io.text_header import (
    TextHeader,
    following_names,
    header_and,
    listed_files,
    read_lines,
    shown,
)

ENDINGS = (".nrrd", ".nhdr")
MAGIC = re.compile(r"NRRD(0{3}[1-5]|00\.01)")
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        *("longlong", "long long", "long long int", "signed long long"),
        *("signed long long int", "int64", "int64_t"),
    ),
    "u8": (*("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),),
    "f4": ("float",),
    "f8": ("double",),
}
ENCODINGS: dict[str, Encoding] = {
    **{"raw": "none", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2", "hex": "hex"},
    **{"ascii": "text", "text": "text", "txt": "text"},
}
ENDIAN: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
KEYS = {
    *("type", "dimension", "sizes", "encoding", "endian", "kinds", "space", "space dimension"),
    *("space directions", "space origin", "spacings", "axis mins", "axis maxs", "centerings"),
    *("units", "space units", "data file", "line skip", "byte skip"),
}
SAME_KEYS = {
    **{"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"},
    **{"axismins": "axis mins", "axismaxs": "axis maxs", "centers": "centerings"},
}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)` and the affine to mm in RAS+."""
    header = _read_header(path)
    shape, affine = grid(header)
    check_header(path, shape, affine)
    voxels = read_stored(_stored(header))
    channels = channel_axis(header)
    voxels = voxels[None] if channels is None else np.moveaxis(voxels, channels, 0)
    return voxels.reshape(len(voxels), *shape), affine


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine to mm in RAS+, from the header alone."""
    return grid(_read_header(path))


def files(path: Path) -> list[Path]:
    """Return all files that the voxels come from, the header first."""
    return header_and(path, _stored(_read_header(path)).files)


def _read_header(path: Path) -> TextHeader:
    """Read the lines up to an empty one, or to a list of files.

    Raises:
        DataError: if it is no NRRD header, or a field stands twice.
    """
    header = TextHeader(path, {}, 0)
    lines = read_lines(path)
    magic, end = next(lines, ("", 0))
    if not MAGIC.fullmatch(magic):
        raise header.error(f"cannot be read as NRRD: it begins with {shown(magic)}")
    for line, end in lines:
        if not line.strip():
            return TextHeader(path, header.fields, end)
        key, separator, value = map(str.strip, line.partition(":"))
        if line.startswith("#") or value.startswith("="):  # a comment, or what others have noted
            continue
        if not separator:
            raise header.error(f"cannot be read as NRRD: its header has the line {shown(line)}")
        key = SAME_KEYS.get(key.lower(), key.lower())
        if key in header.fields:
            raise header.error(f"cannot be read: its header has two values of {key}")
        if key in KEYS:
            header.fields[key] = value
        if key == "data file" and value.split()[:1] == ["LIST"]:
            return TextHeader(path, header.fields, end, following_names(lines))
    return TextHeader(path, header.fields, end)


def _stored(header: TextHeader) -> Stored:
    """Return where the voxels lie.

    Raises:
        DataError: if the header does not say so, or names files that are not its own.
    """
    axes = header.axes("dimension", "sizes")
    encoding = ENCODINGS.get(header.text("encoding").lower())
    if encoding is None:
        given = shown(header.fields["encoding"])
        raise header.error(f"its encoding is {given}; segpipe reads {', '.join(ENCODINGS)}")
    detached = "data file" in header.fields
    files = [header.path]
    if detached:
        files = listed_files(header, header.fields["data file"], math.prod(axes))
    lines = header.whole("line skip", 0)
    skip = header.whole("byte skip", 0)
    if lines < 0 or skip < LAST or (skip == LAST and encoding in ("text", "hex")):
        raise header.error(
            f"its line skip is {lines} and its byte skip {skip}; none may be negative"
        )
    return Stored(
        files, axes, _dtype(header, encoding), encoding, 0 if detached else header.end, lines, skip
    )


def _dtype(header: TextHeader, encoding: Encoding) -> np.dtype:
    """Return the type of a voxel.

    Raises:
        DataError: if it is no number, or its byte order is not given.
    """
    name = header.text("type").lower()
    found = [code for code, names in TYPES.items() if name in names]
    if not found:
        raise header.error(f"its type is {shown(name)}; segpipe reads numbers of 1 to 8 bytes")
    dtype = np.dtype(found[0])
    if dtype.itemsize == 1 or encoding == "text":
        return dtype
    order = ENDIAN.get(header.text("endian").lower())
    if order is None:
        raise header.error(f"its endian is {shown(header.fields['endian'])}; it is little or big")
    return dtype.newbyteorder(order)
