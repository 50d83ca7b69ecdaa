"""Which numbers voxels may hold: finite ones, and ids of label maps however they were stored."""

from pathlib import Path

import numpy as np

from segpipe.config.data import NaNPolicy
from segpipe.errors import DataError, NotFiniteError
from segpipe.io.notes import warn

ROUNDING = 1e-3  # ids this close to whole numbers were scaled or interpolated by nearest voxel
ROUNDED = "rounded"  # the kind of warning of such ids
NAMED = 5  # colours that a message names at most
# integers and floats that torch lacks operations for, and types that hold their values
WIDER = {
    "uint16": np.int32,
    "uint32": np.int64,
    "uint64": np.float64,
    "float16": np.float32,
    "longdouble": np.float64,
}


def for_torch(array: np.ndarray) -> np.ndarray:
    """Return the same values in a number type of which torch has all operations, writable."""
    wider = array.astype(WIDER.get(array.dtype.name, array.dtype), copy=False)
    return np.require(wider, requirements=["C", "W"])


def without_nan(path: Path | str, array: np.ndarray, nan: NaNPolicy) -> np.ndarray:
    """Return voxels `(C, x, y, z)` that are all finite.

    Raises:
        NotFiniteError: if some are not, and shall not be filled.
        DataError: if they shall be filled, but a channel has no finite voxel.
    """
    invalid = count_invalid(array)
    if not invalid:
        return array
    counted = f"{invalid} of {array.size} voxels are NaN or infinite"
    if nan == "refuse":
        raise NotFiniteError(
            f"{path}: {counted}; repair this file, leave it out, or have them filled with their "
            "channel's smallest value (data.nan=fill in training, nan=fill in prediction)"
        )
    filled = _filled(path, array)
    warn(path, f"{counted}; they were filled with their channel's smallest value")
    return filled


def count_invalid(array: np.ndarray) -> int:
    """Return the number of voxels that are NaN or infinite."""
    if np.issubdtype(array.dtype, np.integer):
        return 0
    return array.size - int(np.isfinite(array).sum())


def _filled(path: Path | str, array: np.ndarray) -> np.ndarray:
    """Return voxels with the smallest finite value of each channel where they are not finite.

    Raises:
        DataError: if a channel has no finite voxel.
    """
    filled = array.copy()
    for number, channel in enumerate(filled):
        finite = np.isfinite(channel)
        if not finite.any():
            raise DataError(f"{path}: every voxel of channel {number} is NaN or infinite")
        channel[~finite] = channel[finite].min()
    return filled


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
        warn(path, f"its ids lie up to {apart:.2g} off whole numbers and were rounded", ROUNDED)
    return rounded.astype(np.int32)
