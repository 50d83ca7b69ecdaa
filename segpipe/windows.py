"""Predict a volume window by window, in bounded memory.

This is the only place where 2D and 3D data differ. A patch always has three axes; for a 2D network
the slice axis has one voxel, which `to_network` removes and `from_network` restores.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

BLOCK_VALUES = 2**22  # that are handed on at once: 16 MiB of float32
Position = tuple[int, ...]  # of the first voxel of a window in the padded volume


def to_network(
    patches: Num[Tensor, "b c x y z"], slice_axis: int | None
) -> Num[Tensor, "b c *space"]:
    """Return patches as the network takes them: without the slice axis for a 2D network."""
    return patches if slice_axis is None else patches.squeeze(slice_axis + 2)


def from_network(
    logits: Float[Tensor, "b k *space"], slice_axis: int | None
) -> Float[Tensor, "b k x y z"]:
    """Return logits with three spatial axes, the reverse of `to_network`."""
    return logits if slice_axis is None else logits.unsqueeze(slice_axis + 2)


def slab_axis(shape: Sequence[int], slice_axis: int | None) -> int:
    """Return the axis along which a volume is finished: the slice axis, else the longest."""
    if slice_axis is not None:
        return slice_axis
    return max(range(3), key=lambda axis: shape[axis])


def softmax(logits: Float[Tensor, "k x y z"]) -> Float[Tensor, "k x y z"]:
    """Return the probabilities of labels that exclude one another."""
    return torch.softmax(logits, 0)


def starts_at_equal_steps(size: int, edge: int, overlap: float) -> list[int]:
    """Return the first voxels of the windows along an axis: at equal steps, the last at the end."""
    step = max(1, int(edge * (1 - overlap)))
    return [*range(0, size - edge, step), size - edge]


def gaussian(patch: Sequence[int]) -> Float[Tensor, "1 x y z"]:
    """Return the weights of a window's voxels, as MONAI has them.

    A Gaussian whose standard deviation is an eighth of the edge, nowhere below 1e-3.
    """
    weight = torch.ones(())
    for edge in patch:
        distance = torch.arange(edge) - (edge - 1) / 2
        weight = weight[..., None] * torch.exp(-(distance**2) / (2 * (edge / 8) ** 2))
    return weight.clamp(min=1e-3)[None]


@dataclass(frozen=True)
class Windowing:
    """How windows cover a volume, and become one again.

    Attributes:
        patch: window size in voxels; 1 along `slice_axis`.
        slice_axis: the axis that a 2D network does not see; None for a 3D network.
        overlap: share of a window that its neighbour covers too, below 1.
        activation: the activation of the blended logits: `softmax` where a voxel has one label,
            `torch.sigmoid` where it may lie in several regions, None to keep logits.
        starts_along: returns the first voxels of the windows along an axis, from its size, the
            window's edge and the overlap.
        weights_of: returns the weights `(1, x, y, z)` of a window's voxels.
    """

    patch: Sequence[int]
    slice_axis: int | None
    overlap: float
    activation: Callable[[Tensor], Tensor] | None = softmax
    starts_along: Callable[[int, int, float], list[int]] = starts_at_equal_steps
    weights_of: Callable[[Sequence[int]], Tensor] = gaussian

    def count(self, shape: Sequence[int]) -> int:
        """Return how many windows `predict_slabs` takes from a volume `(x, y, z)`."""
        total = 1
        for size, edge in zip(shape, self.patch, strict=True):
            total *= len(self.starts_along(max(size, edge), edge, self.overlap))
        return total

    def batches(self, shape: Sequence[int], batch_size: int, axis: int) -> list[list[Position]]:
        """Return the positions of all windows in batches, ordered along `axis`."""
        starts = []
        for size, edge in zip(shape, self.patch, strict=True):
            starts.append(self.starts_along(size, edge, self.overlap))
        positions = sorted(itertools.product(*starts), key=lambda position: position[axis])
        first_of_batch = range(0, len(positions), batch_size)
        return [positions[first : first + batch_size] for first in first_of_batch]


def predict_slabs(
    network: nn.Module | Callable[[Tensor], Tensor],
    volume: Float[Tensor, "c x y z"],
    windowing: Windowing,
    batch_size: int,
) -> Iterator[Float[Tensor, "k x_ y_ z_"]]:
    """Yield the probabilities of a volume, or its logits, slab by slab.

    They come from overlapping windows that are blended with Gaussian weights (Isensee 2021). The
    slabs follow one another along `slab_axis`, and together make the volume. Each is yielded as
    soon as no later window reaches into it, so that memory holds only what is still open.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        volume: the scan in model space. One smaller than a patch is padded, and cropped again.
            Windows are blended on its device, wherever the network computes.
        windowing: how windows cover the volume.
        batch_size: windows that the network computes at once.
    """
    patch = windowing.patch
    slice_axis = windowing.slice_axis
    axis = slab_axis(volume.shape[1:], slice_axis)
    before = _padding_before(volume.shape[1:], patch)
    padded = _padded(volume, patch, before)
    batches = windowing.batches(padded.shape[1:], batch_size, axis)
    weights = windowing.weights_of(patch).to(volume.device)
    open_rows = _OpenRows(patch, axis, padded.shape[1:], batches, weights)
    for batch, next_batch in itertools.pairwise([*batches, None]):
        assert batch is not None
        patches = torch.stack([_window(padded, position, patch) for position in batch])
        logits = network(to_network(patches, slice_axis)).float().to(volume.device)
        open_rows.add(batch, from_network(logits, slice_axis))
        end = next_batch[0][axis] if next_batch else padded.shape[axis + 1]
        for sums, row in open_rows.finished(end):
            cropped = _cropped(sums, volume.shape[1:], before, axis, row)
            if cropped.numel():
                blended = cropped[:-1] / cropped[-1:]
                yield blended if windowing.activation is None else windowing.activation(blended)
        if next_batch:
            open_rows.close(end)


class _OpenRows:
    """Sums of weighted logits, and of weights, of the rows that later windows still reach.

    Args:
        patch: window size in voxels.
        axis: along which rows are finished.
        shape: the shape of the padded volume.
        batches: positions of all windows, in the order in which they are added.
        weight: the weight of a window's voxels, on the device on which the sums are kept.
    """

    def __init__(
        self,
        patch: Sequence[int],
        axis: int,
        shape: Sequence[int],
        batches: Sequence[Sequence[Position]],
        weight: Float[Tensor, "1 x y z"],
    ) -> None:
        self.patch = patch
        self.axis = axis
        self.shape = list(shape)
        self.shape[axis] = patch[axis] + max(batch[-1][axis] - batch[0][axis] for batch in batches)
        self.weight = weight
        self.sums: Tensor | None = None  # (k + 1, x, y, z): the logits' sums, and the weights' sum
        self.first = 0  # number of the first open row

    def add(self, batch: Sequence[Position], logits: Float[Tensor, "b k x y z"]) -> None:
        """Add the windows of one batch."""
        if self.sums is None:
            self.sums = logits.new_zeros(logits.shape[1] + 1, *self.shape)
        for position, window in zip(batch, logits, strict=True):
            inside = list(position)
            inside[self.axis] -= self.first
            sums = _window(self.sums, inside, self.patch)
            sums[:-1].addcmul_(window, self.weight)  # `+=` would copy the result onto itself
            sums[-1:].add_(self.weight)

    def finished(self, end: int) -> Iterator[tuple[Tensor, int]]:
        """Yield the rows before `end` in small blocks, each with the number of its first row.

        What a caller makes of a block is soon used and gone.
        """
        assert self.sums is not None
        count = end - self.first
        values_per_row = self.sums.numel() // self.sums.shape[self.axis + 1]
        rows = max(1, BLOCK_VALUES // max(1, values_per_row))
        for begin in range(0, count, rows):
            block = self.sums.narrow(self.axis + 1, begin, min(rows, count - begin))
            yield block, self.first + begin

    def close(self, end: int) -> None:
        """Make the row `end` the first open one.

        Rows move class by class, so that there is never a second copy of all of them.
        """
        assert self.sums is not None
        count = end - self.first
        self.first = end
        if not count:
            return
        for rows in self.sums:
            left = rows.shape[self.axis] - count
            moved = rows.narrow(self.axis, count, left).clone()
            rows.narrow(self.axis, 0, left).copy_(moved)
            rows.narrow(self.axis, left, count).zero_()


def _padding_before(shape: Sequence[int], patch: Sequence[int]) -> list[int]:
    """Return how many voxels are padded before each axis, half of what the patch is larger."""
    return [max(0, edge - size) // 2 for size, edge in zip(shape, patch, strict=True)]


def _padded(volume: Tensor, patch: Sequence[int], before: Sequence[int]) -> Tensor:
    """Return the volume padded with zeros to the size of a patch at least."""
    padding: list[int] = []  # from the last axis to the first, as torch wants it
    for axis in (2, 1, 0):
        missing = max(0, patch[axis] - volume.shape[axis + 1])
        padding += [before[axis], missing - before[axis]]
    return nn.functional.pad(volume, padding) if any(padding) else volume


def _window(volume: Tensor, position: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Return a view of the window of a volume `(c, x, y, z)` at this position."""
    for axis in range(3):
        volume = volume.narrow(axis + 1, position[axis], patch[axis])
    return volume


def _cropped(
    rows: Tensor, shape: Sequence[int], before: Sequence[int], axis: int, first_row: int
) -> Tensor:
    """Return rows of the padded volume, from `first_row` on, without what was padded."""
    for dim, (size, padding) in enumerate(zip(shape, before, strict=True)):
        start = padding - first_row if dim == axis else padding
        begin = max(0, start)
        end = max(0, min(rows.shape[dim + 1], start + size))
        rows = rows.narrow(dim + 1, min(begin, end), max(0, end - begin))
    return rows
