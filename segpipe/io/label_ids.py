"""Label ids as files hold them: colours, scaled integers and floats."""

from pathlib import Path

import numpy as np

from segpipe.errors import DataError
from segpipe.io.notes import warn

ROUNDING = 1e-3  # ids this close to whole numbers were scaled or interpolated by nearest voxel
NAMED = 5  # colours that a message names at most


def one_channel(path: Path, array: np.ndarray) -> np.ndarray:
    """Return a label map `(C, x, y, z)` of equal channels as `(1, x, y, z)`.

    Raises:
        DataError: if they differ, with the colours as the hint.
    """
    if (array == array[:1]).all():
        return array[:1]
    if len(array) not in (3, 4) or array.dtype.kind != "u":
        raise DataError(
            f"{path}: has {len(array)} channels that differ; a label map has one: merge them into "
            "ids 0, 1, 2 ..."
        )
    colours, counts = np.unique(array.reshape(len(array), -1), axis=1, return_counts=True)
    named = []
    for index in np.argsort(-counts)[:NAMED]:
        colour = ", ".join(map(str, colours[:, index]))
        named.append(f"({colour}) in {counts[index]} voxels")
    more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    raise DataError(
        f"{path}: holds colours, but a label map holds ids: give each colour an id 0, 1, 2 ... "
        f"({', '.join(named)}{more})"
    )


def whole_numbers(path: Path, array: np.ndarray) -> np.ndarray:
    """Return ids as integers where all lie within `ROUNDING` of whole numbers, else as they are."""
    if array.dtype.kind != "f":
        return array
    rounded = np.rint(array)
    apart = float(np.abs(array - rounded).max())
    if apart > ROUNDING or np.abs(rounded).max() > np.iinfo(np.int32).max:
        return array
    if apart > 0:
        warn(path, f"its ids lie up to {apart:.2g} off whole numbers and were rounded")
    return rounded.astype(np.int32)
