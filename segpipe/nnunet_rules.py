"""The rules by which nnU-Net v2 crops, resamples and covers a scan with windows.

They are the plan's `rules: nnunet`, so that a network of nnU-Net's sees what it was trained on. A
resampling is linear in the voxels and separable, so it is a matrix for each axis, which is made
once from SciPy's own interpolation and multiplied with the whole volume.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy  # whose `ndimage` is imported when it is first needed
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

ANISOTROPIC = 3.0  # the coarsest spacing is apart if it is more than this times the finest
CUBIC = 3  # order of the splines
LONGEST = 2048  # voxels of an axis whose matrix is made: 16 MiB
PEAK = 10.0  # of the Gaussian weights, which are kept in half precision
Box = tuple[slice, slice, slice]


def nonzero_box(voxels: Num[np.ndarray, "c x y z"]) -> Box:
    """Return the box around all voxels that are not 0 in some channel; all where there is none."""
    boxes = scipy.ndimage.find_objects((voxels != 0).any(0).astype(np.uint8))
    if boxes and boxes[0] is not None:
        return boxes[0]
    x, y, z = voxels.shape[1:]
    return slice(0, x), slice(0, y), slice(0, z)


def filled_mask(voxels: Num[np.ndarray, "c x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Return where some channel is not 0, holes filled."""
    filled: Any = scipy.ndimage.binary_fill_holes((voxels != 0).any(0))
    return filled


def scaled(size: int, spacing_mm: float, target_mm: float) -> int:
    """Return the voxels of an axis at another spacing, rounded as nnU-Net does."""
    return max(1, round(spacing_mm / target_mm * size))


def coarse_axis(spacing_mm: Sequence[float], other_mm: Sequence[float]) -> int | None:
    """Return the axis that is resampled apart, by the nearest slice; None where there is none.

    It is the one coarsest axis of the first spacing that is anisotropic: that of the volume, else
    that to which it is brought.
    """
    for spacing in (spacing_mm, other_mm):
        if max(spacing) / min(spacing) > ANISOTROPIC:
            coarsest = [axis for axis in range(3) if max(spacing) / spacing[axis] == 1]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample(
    image: Float[Tensor, "c x y z"], shape: tuple[int, int, int], coarse: int | None
) -> Float[Tensor, "c x_ y_ z_"]:
    """Return an image resampled by cubic splines, along `coarse` by the nearest slice.

    What a spline overshoots is cut off: at the extremes of the channel, or of each slice across
    `coarse`.

    Args:
        image: normalised.
        shape: the shape of the result, which covers the same field of view.
        coarse: the axis that is resampled apart; None where there is none.
    """
    if tuple(image.shape[1:]) == shape:
        return image
    within = [axis + 1 for axis in range(3) if axis != coarse]
    low = image.amin(within, keepdim=True)
    high = image.amax(within, keepdim=True)
    growth = [new / old for new, old in zip(shape, image.shape[1:], strict=True)]
    for axis in sorted(range(3), key=growth.__getitem__):  # what shrinks comes first
        if axis != coarse:
            image = _along(image, axis, shape[axis])
    image = image.clamp(low, high)
    if coarse is not None:
        image = image.index_select(coarse + 1, nearest_rows(image.shape[coarse + 1], shape[coarse]))
    return image


def _along(image: Tensor, axis: int, target: int) -> Tensor:
    """Return an image `(c, x, y, z)` with one spatial axis resampled by cubic splines."""
    size = image.shape[axis + 1]
    if size == target:
        return image
    if max(size, target) > LONGEST:
        factors = [1.0] * 4
        factors[axis + 1] = target / size
        return torch.from_numpy(_zoom(image.numpy(), factors))
    return (image.movedim(axis + 1, -1) @ spline_matrix(size, target).T).movedim(-1, axis + 1)


@lru_cache(maxsize=8)
def spline_matrix(size: int, target: int) -> Float[Tensor, "target size"]:
    """Return the weight of each of `size` voxels in each of `target` resampled ones."""
    return torch.from_numpy(_zoom(np.eye(size), [target / size, 1.0])).float()


def _zoom(array: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    resampled: Any = scipy.ndimage.zoom(array, factors, order=CUBIC, mode="nearest", grid_mode=True)
    return resampled


def nearest_rows(size: int, target: int) -> Tensor:
    """Return for each of `target` rows the one of `size` rows that covers its centre."""
    rows = (torch.arange(target, dtype=torch.float64) + 0.5) * (size / target)
    return rows.floor().long().clamp(0, size - 1)


def window_starts(size: int, edge: int, overlap: float) -> list[int]:
    """Return the first voxels of windows along an axis, spread evenly from end to end."""
    step = max(1.0, edge * (1 - overlap))
    steps = math.ceil((size - edge) / step)
    return [round((size - edge) / max(1, steps) * number) for number in range(steps + 1)]


def window_weights(patch: Sequence[int]) -> Float[Tensor, "1 x y z"]:
    """Return the Gaussian weights of a window's voxels, centred on one of them."""
    weight = torch.full((), PEAK, dtype=torch.float64)
    for edge in patch:
        peak = np.zeros(edge)
        peak[edge // 2] = 1
        row = torch.from_numpy(scipy.ndimage.gaussian_filter1d(peak, edge / 8, mode="constant"))
        weight = weight[..., None] * (row / row.max())
    half = weight.half()
    return half.where(half > 0, half[half > 0].min()).float()[None]
