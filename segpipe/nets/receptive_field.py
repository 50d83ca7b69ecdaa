"""The receptive field of a network, followed exactly from layer to layer."""

import numpy as np
from torch import nn

ROW = 2**14  # voxels of the row along which a receptive field is followed


class ReceptiveField:
    """The receptive field along the longest path through a network (Araujo 2019).

    Along each axis it follows a row of voxels: for each position the first and the last voxel of
    the image that it depends on, infinite where that would lie outside the row.

    Args:
        dims: number of axes.
    """

    def __init__(self, dims: int) -> None:
        self.first = [np.arange(ROW, dtype=float) for _ in range(dims)]
        self.last = [np.arange(ROW, dtype=float) for _ in range(dims)]

    @property
    def field(self) -> tuple[int, ...] | None:
        """Widest field of any position, voxels per axis; None where all lie outside the row."""
        sizes = []
        for first, last in zip(self.first, self.last, strict=True):
            widths = last - first + 1
            finite = widths[np.isfinite(widths)]
            if not len(finite):
                return None
            sizes.append(int(finite.max()))
        return tuple(sizes)

    def passes(self, layer: nn.Module) -> None:
        """Follow the field through a layer; layers that look at single voxels change nothing."""
        for axis in range(len(self.first)):
            inputs = _inputs(layer, axis, len(self.first[axis]))
            if inputs is None:
                continue
            low, high = inputs
            self.first[axis] = _take(self.first[axis], low, -np.inf)
            self.last[axis] = _take(self.last[axis], high, np.inf)


def _inputs(layer: nn.Module, axis: int, length: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first and last input position that each output position of a layer depends on.

    Returns:
        Both as an array of indices, which may lie outside the input; None for a layer that does not
        mix voxels.
    """
    match layer:
        case nn.Conv2d() | nn.Conv3d():
            kernel = layer.kernel_size[axis]
            low = np.arange(0, length, layer.stride[axis]) - kernel // 2
            return low, low + kernel - 1
        case nn.MaxPool2d() | nn.MaxPool3d() if not isinstance(layer.kernel_size, int):
            low = np.arange(0, length, layer.kernel_size[axis])
            return low, low + layer.kernel_size[axis] - 1
        case nn.ConvTranspose2d() | nn.ConvTranspose3d():
            kernel = int(layer.kernel_size[axis])
            stride = int(layer.stride[axis])
            padded = np.arange(length * stride) + int(layer.padding[axis])
            return -((kernel - 1 - padded) // stride), padded // stride
        case nn.Upsample() if isinstance(layer.scale_factor, tuple):
            scale = int(layer.scale_factor[axis])
            positions = np.arange(length * scale)
            if layer.mode == "nearest":
                return positions // scale, positions // scale
            centres = (positions + 0.5) / scale - 0.5
            return np.floor(centres).astype(int), np.ceil(centres).astype(int)
    return None


def _take(row: np.ndarray, indices: np.ndarray, outside: float) -> np.ndarray:
    """Return `row[indices]`, with this value where an index lies outside the row."""
    inside = (indices >= 0) & (indices < len(row))
    return np.where(inside, row[indices.clip(0, len(row) - 1)], outside)
