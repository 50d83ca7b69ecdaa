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

from segpipe.device import to_device

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
        image: Tensor = data["image"]
        label: Tensor = data["label"]
        lines = self.draw(image.shape[1:])
        images, labels = self.warp(image[None], label[None], [lines])
        return {**data, "image": images[0], "label": labels[0]}

    def draw(self, cut: Sequence[int]) -> np.ndarray | None:
        """Draw how a patch is taken out of a cut of this size in voxels.

        Returns:
            The terms of the patch's `_positions`, shape `(3, sum of its edges)`, float32; None for
            the centre of the cut.
        """
        is_affine, is_elastic = self.R.random(2) < (self.affine_prob, self.elastic_prob)
        if not (is_affine or is_elastic):
            return None
        matrix = self._draw_matrix() if is_affine else np.eye(3)
        coordinates = []
        for axis, voxels in enumerate(self.patch):
            bends = is_elastic and axis in self.elastic_axes
            coordinates.append(self._draw_bent_axis(voxels) if bends else _straight_axis(voxels))
        return _position_terms(matrix, coordinates, cut)

    def warp(
        self, images: Tensor, labels: Tensor, lines: Sequence[np.ndarray | None]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Take the patches out of a batch of cuts, all in one interpolation.

        Args:
            images: shape `(b, c, x, y, z)`.
            labels: shape `(b, 1, x, y, z)`.
            lines: what `draw` has returned for each.

        Returns:
            Images `(c, *patch)` and labels `(1, *patch)`.
        """
        taken = [_crop_centre(image, self.patch) for image in images]
        taken_labels = [_crop_centre(label, self.patch) for label in labels]
        numbers = []  # of the patches that are warped
        drawn = []
        for number, line in enumerate(lines):
            if line is not None:
                numbers.append(number)
                drawn.append(line)
        if not drawn:
            return taken, taken_labels
        terms = to_device(torch.from_numpy(np.stack(drawn)), images.device)
        grid = _positions(terms, self.patch)
        sampled = _sample_linear(_chosen(images, numbers), grid)
        nearest = _sample_nearest(_chosen(labels, numbers), grid)
        for place, number in enumerate(numbers):
            taken[number] = sampled[place]
            taken_labels[number] = nearest[place]
        return taken, taken_labels

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


def _chosen(batch: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return these samples of a batch; an index of numbers would be copied to the device first."""
    if len(numbers) == len(batch):
        return batch
    return torch.stack([batch[number] for number in numbers])


def _position_terms(
    matrix: np.ndarray, coordinates: Sequence[np.ndarray], cut: Sequence[int]
) -> np.ndarray:
    """Return what each axis of a patch adds to the position from which a voxel is taken.

    Args:
        matrix: (3, 3), from the patch's coordinates to those of the cut.
        coordinates: the coordinates of the patch's voxels along each axis, in voxels from its
            centre.
        cut: size in voxels.

    Returns:
        Shape `(3, sum of edges)`, float32, the terms of one axis after those of the other.
    """
    rows = (matrix * 2 / np.array(cut)[:, None])[::-1]
    terms = [rows[:, axis, None] * line for axis, line in enumerate(coordinates)]
    return np.concatenate(terms, axis=1).astype(np.float32)


def _positions(terms: Tensor, patch: Sequence[int]) -> Tensor:
    """Return the position in its cut from which each voxel of a patch is taken.

    Args:
        terms: shape `(b, 3, sum of edges)`.
        patch: size in voxels.

    Returns:
        Shape `(b, *patch, 3)`, as `grid_sample` takes it: from -1 to 1, the last axis first.
    """
    x, y, z = terms.split(list(patch), dim=2)
    positions = x[:, :, :, None, None] + (y[:, :, :, None] + z[:, :, None])[:, :, None]
    return positions.permute(0, 2, 3, 4, 1)


def _sample_linear(images: Tensor, grid: Tensor) -> Tensor:
    """Interpolate images `(b, c, x, y, z)` at the positions of a grid: `(b, c, *patch)`.

    On a CPU `grid_sample` uses one core for each sample of a batch, so a single patch is divided
    into as many samples as there are cores.
    """
    parts = 1
    if grid.device.type == "cpu" and len(grid) == 1:
        parts = math.gcd(grid.shape[1], torch.get_num_threads())
    if parts > 1:
        images = images.expand(parts, *images.shape[1:])
        grid = grid[0].unflatten(0, (parts, -1))
    sampled = grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    return sampled.movedim(0, 1).flatten(1, 2)[None] if parts > 1 else sampled


def _sample_nearest(labels: Tensor, grid: Tensor) -> Tensor:
    """Return the voxels, of any type, in which the positions of a grid lie: `(b, 1, *patch)`.

    `grid_sample` takes longer, and converts integers to floating point.
    """
    padded = pad(labels, (1,) * 6)
    indices = torch.zeros(grid.shape[:-1], dtype=torch.int32, device=grid.device)
    stride = 1
    for positions, size in zip(grid.unbind(-1), labels.shape[:1:-1], strict=True):
        numbers = (positions * (size / 2)).add_(size / 2 + 1).clamp_(0, size + 1).int()
        indices.add_(numbers, alpha=stride)
        stride *= size + 2
    taken = []
    for voxels, index in zip(padded, indices, strict=True):
        taken.append(voxels.flatten().index_select(0, index.flatten()).view(1, *index.shape))
    return torch.stack(taken)
