"""Rotate, scale and bend a patch in a single interpolation.

MONAI's `RandAffined` and `RandGridDistortiond` interpolate twice where both are applied, in float64
and on one core; `benchmarks/augment.py` measures both ways.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from torch import Tensor
from torch.nn.functional import grid_sample, pad

CELLS = 5  # an axis is divided into so many parts, each stretched or squeezed
BEND = 0.1  # by at most this share of its length
BOTH = ("image", "label")
OTHER_AXES = ((1, 2), (0, 2), (0, 1))  # of each axis


class RandWarpd(Randomizable, MapTransform):
    """Makes a patch of a larger cut: rotated, scaled and bent at random, or else its centre.

    Takes and returns `image`, shape `(c, x, y, z)`, interpolated linearly, and `label`, shape
    `(1, x, y, z)`, of which the nearest voxel is taken; both are 0 outside of what was cut.

    Args:
        patch: size of the patch in voxels.
        affine_prob: probability of a rotation with scaling.
        angles: largest rotation about each axis, in radians.
        sizes: largest relative change of size along each axis.
        elastic_prob: probability of a smooth stretching and squeezing, of each axis on its own.
        elastic_axes: the axes to which that applies.
    """

    def __init__(
        self,
        patch: Sequence[int],
        affine_prob: float,
        angles: Sequence[float],
        sizes: Sequence[float],
        elastic_prob: float,
        elastic_axes: Sequence[int],
    ) -> None:
        MapTransform.__init__(self, BOTH)
        self.patch = patch
        self.affine_prob = affine_prob
        self.angles = angles
        self.sizes = sizes
        self.elastic_prob = elastic_prob
        self.elastic_axes = elastic_axes

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the patch of a cut."""
        image = data["image"]
        label = data["label"]
        is_affine, is_elastic = self.R.random(2) < (self.affine_prob, self.elastic_prob)
        if not (is_affine or is_elastic):
            image = _crop_centre(image, self.patch)
            return {**data, "image": image, "label": _crop_centre(label, self.patch)}
        matrix = self._draw_matrix() if is_affine else np.eye(3)
        coordinates = []
        for axis, voxels in enumerate(self.patch):
            bends = is_elastic and axis in self.elastic_axes
            coordinates.append(self._draw_bent_axis(voxels) if bends else _straight_axis(voxels))
        grid = _sampling_grid(matrix, coordinates, image)
        return {
            **data,
            "image": _sample_linear(image, grid),
            "label": _sample_nearest(label, grid),
        }

    def _draw_matrix(self) -> np.ndarray:
        """Draw a change of size along each axis, then a rotation about each in turn: (3, 3)."""
        matrix = np.diag([1 + self.R.uniform(-size, size) for size in self.sizes])
        for axis, largest in enumerate(self.angles):
            angle = self.R.uniform(-largest, largest)
            matrix = _rotation(axis, angle) @ matrix
        return matrix

    def _draw_bent_axis(self, voxels: int) -> np.ndarray:
        """Draw a `_straight_axis` that is stretched in some parts and squeezed in others.

        Both ends are equally far from the centre.
        """
        widths = 1 + self.R.uniform(-BEND, BEND, CELLS)
        knots = np.cumsum([0, *widths])
        coordinates = np.interp(
            np.linspace(0, CELLS, voxels), np.arange(CELLS + 1), knots - knots[-1] / 2
        )
        return coordinates * (voxels - 1) / CELLS


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Return the rotation about an axis by an angle in radians: (3, 3)."""
    first, second = OTHER_AXES[axis]
    rotation = np.eye(3)
    rotation[first, first] = math.cos(angle)
    rotation[first, second] = -math.sin(angle)
    rotation[second, first] = math.sin(angle)
    rotation[second, second] = math.cos(angle)
    return rotation


def _straight_axis(voxels: int) -> np.ndarray:
    """Return the voxel centres along an axis, in voxels from its centre."""
    return np.arange(voxels) - (voxels - 1) / 2


def _crop_centre(voxels: Tensor, size: Sequence[int]) -> Tensor:
    for axis, edge in enumerate(size, start=1):
        voxels = voxels.narrow(axis, (voxels.shape[axis] - edge) // 2, edge)
    return voxels


def _sampling_grid(matrix: np.ndarray, coordinates: Sequence[np.ndarray], source: Tensor) -> Tensor:
    """Return the position in `source` from which each voxel of the patch is taken.

    Args:
        matrix: (3, 3), from the patch's coordinates to those of the source.
        coordinates: of the patch's voxels along each axis, in voxels from its centre.
        source: shape `(c, x, y, z)`.

    Returns:
        Shape `(*patch, 3)`, float32, as `grid_sample` takes it: from -1 to 1, the last axis first.
    """
    rows = (matrix * 2 / np.array(source.shape[1:])[:, None])[::-1]
    terms = []
    for axis, line in enumerate(coordinates):
        product = rows[:, axis, None] * line
        terms.append(torch.as_tensor(product, dtype=torch.float32, device=source.device))
    x, y, z = terms
    positions = x[:, :, None, None] + (y[:, :, None] + z[:, None])[:, None]
    return positions.permute(1, 2, 3, 0)


def _sample_linear(voxels: Tensor, grid: Tensor) -> Tensor:
    """Interpolate voxels `(c, x, y, z)` at the positions of a grid: `(c, *patch)`.

    `grid_sample` uses one core for each sample of a batch, so the patch is divided into as many
    samples as there are cores.
    """
    parts = 1
    if grid.device.type == "cpu":
        parts = math.gcd(grid.shape[0], torch.get_num_threads())
    source = voxels.expand(parts, *voxels.shape)
    slabs = grid.unflatten(0, (parts, -1))
    sampled = grid_sample(source, slabs, padding_mode="zeros", align_corners=False)
    return sampled.movedim(0, 1).flatten(1, 2)


def _sample_nearest(voxels: Tensor, grid: Tensor) -> Tensor:
    """Return the voxels, of any type, in which the positions of a grid lie: `(c, *patch)`.

    `grid_sample` takes longer, and converts integers to floating point.
    """
    padded = pad(voxels, (1,) * 6)
    indices = torch.zeros(grid.shape[:-1], dtype=torch.int32, device=grid.device)
    stride = 1
    for positions, size in zip(grid.unbind(-1), voxels.shape[:0:-1], strict=True):
        numbers = (positions * (size / 2)).add_(size / 2 + 1).clamp_(0, size + 1).int()
        indices.add_(numbers, alpha=stride)
        stride *= size + 2
    channels = []
    for channel in padded.flatten(1):
        channels.append(channel.index_select(0, indices.flatten()).view(indices.shape))
    return torch.stack(channels)
