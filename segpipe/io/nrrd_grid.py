"""Where the voxels of an NRRD file lie in the patient, by its header."""

import re

import numpy as np

from segpipe.io.text_header import TextHeader, shown, to_nifti, without_trailing_ones

# signs to LPS+; of spaces that are not of a patient, ITK takes the axes as they are
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
    "scanner-xyz": (1, 1, 1),
    "3d-right-handed": (1, 1, 1),
    "3d-left-handed": (1, 1, 1),
}
# kinds of axes along which voxels lie; any other is of values in one voxel
DOMAIN = {"domain", "space", "time", "none", "???"}
VECTOR = re.compile(r"none|\([^()]*\)")


def _words(header: TextHeader, key: str) -> list[str]:
    """Return the words of a field that has one for each axis; none if it is missing."""
    return header.fields.get(key, "").lower().split()


def channel_axis(header: TextHeader) -> int | None:
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
        for axis, (kind, vector) in enumerate(zip(kinds, vectors, strict=True)):
            if kind in ("none", "???") and not vector:
                found.append(axis)
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
def grid(header: TextHeader) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape `(x, y, z)` and the affine to mm in RAS+.

    Raises:
        DataError: if it is no volume with one affine.
    """
    sizes = header.axes("dimension", "sizes")
    axes = list(range(len(sizes)))
    if (channels := channel_axis(header)) is not None:
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
    lengths = set(map(len, steps))
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
    return header.unit_mm(value.lower().replace('"', " ").split())
