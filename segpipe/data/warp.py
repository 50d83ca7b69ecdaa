"""A patch is turned, scaled and bent in one interpolation.

MONAI's `RandAffined` and `RandGridDistortiond` interpolate twice where both are asked for, in float64 and on one core;
`benchmarks/augment.py` measures both ways.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from torch import Tensor
from torch.nn.functional import grid_sample, pad

CELLS = 5  # a bent axis is stretched or squeezed in so many parts
BEND = 0.1  # by at most this much
BOTH = ("image", "label")


class RandWarpd(Randomizable, MapTransform):
    """What was cut larger -> a patch: rotated about each axis, scaled and bent along each, or its middle as it is.

    Takes and gives `image` `(c, x, y, z)`, interpolated linearly, and `label` `(1, x, y, z)`, whose nearest voxel is
    taken; both are 0 outside of what was cut.

    Args:
        patch: size in voxels that is given.
        turned: probability of a rotation with scaling.
        angles: largest rotation about each axis, in radians.
        sizes: largest relative change of size along each axis.
        bent: probability of a smooth stretching and squeezing, each axis by its own course.
        bends: the axes along which it is bent.
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
        self.patch, self.affine_prob, self.angles, self.sizes = patch, affine_prob, angles, sizes
        self.elastic_prob, self.elastic_axes = elastic_prob, elastic_axes

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The patch."""
        affine_prob, elastic_prob = self.R.random(2) < (self.affine_prob, self.elastic_prob)
        if not (affine_prob or elastic_prob):
            return {**data, **{name: _middle(data[name], self.patch) for name in BOTH}}
        matrix = self._matrix() if affine_prob else np.eye(3)
        lines = [
            self._bend(n) if elastic_prob and axis in self.elastic_axes else _line(n)
            for axis, n in enumerate(self.patch)
        ]
        grid = _grid(matrix, lines, data["image"])
        return {
            **data,
            "image": _linear(data["image"], grid),
            "label": _nearest(data["label"], grid),
        }

    def _matrix(self) -> np.ndarray:
        """A rotation about each axis in turn, and a change of size along each."""
        matrix = np.diag([1 + self.R.uniform(-size, size) for size in self.sizes])
        for axis, largest in enumerate(self.angles):
            angle = self.R.uniform(-largest, largest)
            about = np.eye(3)
            first, second = (other for other in range(3) if other != axis)
            about[first, first] = about[second, second] = math.cos(angle)
            about[first, second], about[second, first] = -math.sin(angle), math.sin(angle)
            matrix = about @ matrix
        return matrix

    def _bend(self, voxels: int) -> np.ndarray:
        """`_line`, stretched in some parts and squeezed in others; its ends lie alike far from the middle."""
        knots = np.cumsum([0, *(1 + self.R.uniform(-BEND, BEND, CELLS))])
        course = np.interp(
            np.linspace(0, CELLS, voxels), np.arange(CELLS + 1), knots - knots[-1] / 2
        )
        return course * (voxels - 1) / CELLS


def _line(voxels: int) -> np.ndarray:
    """Where the voxels along an axis are, from its middle."""
    return np.arange(voxels) - (voxels - 1) / 2


def _middle(voxels: Tensor, size: Sequence[int]) -> Tensor:
    for axis, wanted in enumerate(size):
        voxels = voxels.narrow(axis + 1, (voxels.shape[axis + 1] - wanted) // 2, wanted)
    return voxels


def _grid(matrix: np.ndarray, lines: Sequence[np.ndarray], source: Tensor) -> Tensor:
    """From where in `source` each voxel is taken: `(x, y, z, 3)`, as `grid_sample` counts, from -1 to 1, z first."""
    rows = (matrix * 2 / np.array(source.shape[1:])[:, None])[::-1]
    columns = [
        torch.as_tensor(rows[:, axis, None] * line, dtype=torch.float32, device=source.device)
        for axis, line in enumerate(lines)
    ]
    planes = columns[0][:, :, None, None] + (columns[1][:, :, None] + columns[2][:, None])[:, None]
    return planes.permute(1, 2, 3, 0)


def _linear(voxels: Tensor, grid: Tensor) -> Tensor:
    """`grid_sample`, which uses a core for each sample of a batch: so the one here is taken as several, a part each."""
    parts = math.gcd(grid.shape[0], torch.get_num_threads()) if grid.device.type == "cpu" else 1
    source, split = voxels.expand(parts, *voxels.shape), grid.unflatten(0, (parts, -1))
    return (
        grid_sample(source, split, padding_mode="zeros", align_corners=False)
        .movedim(0, 1)
        .flatten(1, 2)
    )


def _nearest(voxels: Tensor, grid: Tensor) -> Tensor:
    """The voxel in which each place lies, whatever its type; in less time than `grid_sample`."""
    rimmed, step = pad(voxels, (1,) * 6), 1
    numbers = torch.zeros(grid.shape[:-1], dtype=torch.int32, device=grid.device)
    for places, size in zip(grid.unbind(-1), voxels.shape[:0:-1], strict=True):
        numbers.add_((places * (size / 2)).add_(size / 2 + 1).clamp_(0, size + 1).int(), alpha=step)
        step *= size + 2
    return torch.stack(
        [flat.index_select(0, numbers.flatten()).view(numbers.shape) for flat in rimmed.flatten(1)]
    )
