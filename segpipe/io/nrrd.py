"""NRRD files (`.nrrd`, `.nhdr`), read as ITK reads them, and some that it cannot read."""

import math
import re
from pathlib import Path
from typing import Literal

import numpy as np

from segpipe.io.nifti import check_header
from segpipe.io.stored import LAST, Encoding, Stored, read_stored
from segpipe.io.text_header import (
    MM,
    TextHeader,
    following_names,
    header_and,
    listed_files,
    read_lines,
    shown,
    to_nifti,
    without_trailing_ones,
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
# signs to LPS+; of spaces that are not of a patient, ITK takes the axes as they are
SPACES = {
    **{"left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1)},
    **{"right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1)},
    **{"left-anterior-superior": (1, -1, 1), "las": (1, -1, 1)},
    **{"scanner-xyz": (1, 1, 1), "3d-right-handed": (1, 1, 1), "3d-left-handed": (1, 1, 1)},
}
# kinds of axes along which voxels lie; any other is of values in one voxel
DOMAIN = {"domain", "space", "time", "none", "???"}
VECTOR = re.compile(r"none|\([^()]*\)")
KEYS = {
    *("type", "dimension", "sizes", "encoding", "endian", "kinds", "space", "space dimension"),
    *(
        "space directions",
        "space origin",
        "spacings",
        "axis mins",
        "axis maxs",
        "centerings",
        "units",
    ),
    *("space units", "data file", "line skip", "byte skip"),
}
SAME_KEYS = {
    **{"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"},
    **{"axismins": "axis mins", "axismaxs": "axis maxs", "centers": "centerings"},
}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)` and the affine to mm in RAS+."""
    header = _read_header(path)
    shape, affine = _grid(header)
    check_header(path, shape, affine)
    voxels = read_stored(_stored(header))
    channels = _channel_axis(header)
    voxels = voxels[None] if channels is None else np.moveaxis(voxels, channels, 0)
    return voxels.reshape(len(voxels), *shape), affine


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine to mm in RAS+, from the header alone."""
    return _grid(_read_header(path))


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


def _words(header: TextHeader, key: str) -> list[str]:
    """Return the words of a field that has one for each axis; none if it is missing."""
    return header.fields.get(key, "").lower().split()


def _channel_axis(header: TextHeader) -> int | None:
    """Return the axis along which the values of one voxel lie.

    Raises:
        DataError: if there are several, or they are complex numbers.
    """
    sizes = header.axes("dimension", "sizes")
    kinds = _words(header, "kinds") or ["???"] * len(sizes)
    if len(kinds) != len(sizes) or "complex" in kinds:
        given = shown(header.fields["kinds"])
        raise header.error(f"its kinds are {given}; segpipe reads real numbers and a kind an axis")
    found = [axis for axis, kind in enumerate(kinds) if kind not in DOMAIN]
    if not found and "space directions" in header.fields:
        # some writers mark the axis only by its lack of a direction
        vectors = _vectors(header, "space directions", len(sizes))
        unknown = [kind in ("none", "???") for kind in kinds]
        found = [axis for axis, vector in enumerate(vectors) if not vector and unknown[axis]]
    if len(found) > 1:
        raise header.error(f"has {len(found)} axes of values in a voxel; segpipe reads one")
    return found[0] if found else None


def _vectors(header: TextHeader, key: str, count: int) -> list[list[float]]:
    """Return vectors `(a,b,c) none (d,e,f)`; `none` as an empty one.

    Raises:
        DataError: if there are more or fewer, or something else.
    """
    value = header.text(key).lower()
    words = VECTOR.findall(value)
    if len(words) != count or VECTOR.sub("", value).strip():
        given = shown(header.fields[key])
        raise header.error(f"cannot be read: its {key} is {given}, and must be {count} vectors")
    vectors = []
    for word in words:
        numbers = word.strip("()").split(",") if word != "none" else []
        vectors.append(header.parsed(key, numbers, len(numbers), float))
    return vectors


# what overflows is infinite or undefined, and refused as such
@np.errstate(all="ignore")
def _grid(header: TextHeader) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape `(x, y, z)` and the affine to mm in RAS+.

    Raises:
        DataError: if it is no volume with one affine.
    """
    sizes = header.axes("dimension", "sizes")
    axes = list(range(len(sizes)))
    if (channels := _channel_axis(header)) is not None:
        axes.remove(channels)
    shape, kept = without_trailing_ones(header, [sizes[axis] for axis in axes])
    axes = axes[:kept]
    if "space directions" in header.fields:
        steps = _directions(header, axes) * _signs(header)[:kept, None]
    else:
        steps = np.diag(_spacings(header, axes))
    unit = _unit(header)
    return shape, to_nifti(steps * unit, _origin(header, axes) * unit)


def _directions(header: TextHeader, axes: list[int]) -> np.ndarray:
    """Return the steps along axes, a column each, in the space of the header."""
    count = len(header.axes("dimension", "sizes"))
    vectors = _vectors(header, "space directions", count)
    steps = [vectors[axis] for axis in axes]
    allowed = (2,) if len(axes) == 2 else (3, 4)  # in a space with time, the axis of time is one
    lengths = {len(step) for step in steps}
    if len(lengths) != 1 or not lengths.issubset(allowed):
        given = shown(header.fields["space directions"])
        raise header.error(f"its space directions are {given}; a scan has {len(axes)} in its space")
    return np.array(steps).T[: len(axes)]


def _signs(header: TextHeader) -> np.ndarray:
    """Return the signs that turn the axes of the header's space into LPS+, (3,).

    Raises:
        DataError: if the space is not known.
    """
    if "space dimension" in header.fields:
        return np.ones(3)
    name = header.text("space").lower().removesuffix("-time")
    name = {"rast": "ras", "last": "las", "lpst": "lps"}.get(name, name)
    if name not in SPACES:
        raise header.error(f"its space is {shown(name)}; segpipe knows {', '.join(SPACES)}")
    return np.array(SPACES[name], float)


def _spacings(header: TextHeader, axes: list[int]) -> np.ndarray:
    """Return the distances of voxels along axes, 1 where the header has none.

    Raises:
        DataError: if they stand beside a space, in which they say nothing of an orientation.
    """
    if "axis maxs" in header.fields and "spacings" not in header.fields:
        raise header.error("has axis maxs and no spacings; give it spacings")
    if "spacings" not in header.fields:
        return np.ones(len(axes))
    if "space" in header.fields:
        raise header.error("has a space and spacings; in a space it must have space directions")
    count = len(header.axes("dimension", "sizes"))
    return np.array(header.numbers("spacings", count, float))[axes]


def _origin(header: TextHeader, axes: list[int]) -> np.ndarray:
    """Return the centre of the first voxel in LPS+."""
    count = len(axes)
    if "space origin" in header.fields:
        (origin,) = _vectors(header, "space origin", 1)
        if len(origin) < count:
            raise header.error(f"its space origin has {len(origin)} numbers, and must have {count}")
        return np.array(origin[:count]) * _signs(header)[:count]
    if "space" in header.fields or not {"spacings", "axis mins"} <= set(header.fields):
        return np.zeros(count)
    dimension = len(header.axes("dimension", "sizes"))
    mins = np.array(header.numbers("axis mins", dimension, float))[axes]
    centers = _words(header, "centerings") or ["cell"] * dimension
    if len(centers) != dimension:
        raise header.error(f"its centerings must be {dimension} words")
    # the least position is the edge of the first voxel, or its centre where voxels are nodes
    halves = [0 if centers[axis] == "node" else 0.5 for axis in axes]
    return mins + halves * _spacings(header, axes)


def _unit(header: TextHeader) -> float:
    """Return the mm of the header's unit of length.

    Raises:
        DataError: if it has several.
    """
    value = header.fields.get("space units", header.fields.get("units", ""))
    names = set(value.lower().replace('"', " ").split())
    units = {MM[name] for name in names if name in MM}
    if len(units) > 1:
        raise header.error(f"its axes have several units, {shown(value)}; segpipe reads one")
    return units.pop() if units else 1.0


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
