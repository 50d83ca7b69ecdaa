"""The size of a patch: as much of a case as it may hold, in voxels that a network can halve."""

from collections.abc import Sequence

import numpy as np


def shrink(shape: Sequence[int], voxels: float) -> list[int]:
    """Return the shape, its longest axes shortened until it holds at most so many voxels."""
    size = np.array(shape, dtype=float)
    while size.prod() > voxels:
        longest = np.flatnonzero(size == size.max())
        others = np.delete(size, longest)
        equal = (voxels / others.prod()) ** (1 / len(longest))
        next_longest = others.max(initial=0)
        size[longest] = max(equal, next_longest)
        if equal >= next_longest:  # done, though rounding may leave the product above the limit
            break
    return [max(1, round(float(axis))) for axis in size]


def round_up(size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    """Return a size in voxels along each axis, rounded up to what these strides divide."""
    rounded = []
    for voxels, step in zip(size, np.prod(strides, axis=0).tolist(), strict=True):
        rounded.append(-(-voxels // step) * step)
    return rounded
