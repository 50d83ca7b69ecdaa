"""Resample volumes; decide labels on a finer or coarser grid row by row, in bounded memory."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from segpipe.nnunet_rules import nearest_rows

BLOCK_VOXELS = 2**24  # of the scan's grid that are decided at once: 64 MiB for each array
# Receives a range of rows of the scan's field of view (along an axis of model space) and their
# probabilities, one class after the other; hands the classes on.
ProbabilityObserver = Callable[[slice, Iterable[Tensor]], Iterable[Tensor]]


def resize(volume: Tensor, shape: tuple[int, int, int], mode: str) -> Tensor:
    """Return a volume `(c, x, y, z)` resampled to a shape that covers the same field of view.

    A volume that has the shape already is returned as it is, in its own type.
    """
    if tuple(volume.shape[1:]) == shape:
        return volume
    corners = None if mode.startswith("nearest") else False
    return F.interpolate(volume[None].float(), shape, mode=mode, align_corners=corners)[0]


def average(volume: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return a volume `(c, x, y, z)` with each axis that is more than halved brought to its size.

    Linear interpolation looks at two voxels along an axis, so it would pass over others there. They
    are averaged by a triangle that is as wide as the reduction.
    """
    for axis, size in enumerate(shape, start=1):
        if volume.shape[axis] > 2 * size:
            last = volume.movedim(axis, -1).float()
            flat = (last.shape[-2], size)
            last = F.interpolate(last, flat, mode="bilinear", align_corners=False, antialias=True)
            volume = last.movedim(-1, axis)
    return volume


class NativeLabels:
    """The labels of a scan's grid, decided as the probabilities of model space arrive in slabs.

    Probabilities are interpolated, not logits or labels, class by class under a running maximum.
    There is never an array of all classes on the scan's grid, nor on model space's. By nnU-Net's
    rules logits are interpolated, and become probabilities in smaller blocks.

    Args:
        shape: the shape of the scan's grid, along the axes of model space.
        model_shape: the shape of model space.
        axis: the axis of model space along which the slabs follow one another.
        ids: the ids of overlapping regions, the label that each paints over those before it; None
            where labels exclude one another.
        observer: sees the probabilities on the scan's grid.
        block_voxels: the voxels of the scan's grid that are decided at once; None:
            `BLOCK_VOXELS`.
        of_logits: whether the slabs hold logits.
        coarse: the axis of model space along which the nearest row is taken; None: none is.

    Attributes:
        labels: shape `(x, y, z)` along the same axes, uint8; complete after the last slab.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        model_shape: tuple[int, int, int],
        axis: int,
        ids: Sequence[int] | None,
        observer: ProbabilityObserver | None,
        block_voxels: int | None = None,
        of_logits: bool = False,
        coarse: int | None = None,
    ) -> None:
        self.block_voxels = block_voxels or BLOCK_VOXELS
        self.shape = shape
        self.axis = axis
        self.ids = ids
        self.observer = observer
        self.of_logits = of_logits
        self.nearest: tuple[int, Tensor] | None = None  # in the plane: an axis, and its rows
        self.lower, self.upper, self.weight = _neighbours(shape[axis], model_shape[axis])
        if coarse is not None:
            rows = nearest_rows(model_shape[coarse], shape[coarse])
            if coarse == axis:
                self.lower = rows
                self.upper = rows
                self.weight = torch.zeros(len(rows))
            else:
                self.nearest = (coarse, rows)
        self.there = (self.lower, self.upper, self.weight)  # on the device of the slabs
        self.labels = torch.empty(0)
        self.rows = torch.empty(0)  # of model space, as far as they are still needed
        self.first = 0  # number of the first of them
        self.decided = 0  # rows of the scan's grid

    def add(self, slab: Float[Tensor, "k x y z"]) -> None:
        """Add the next rows of model space, and decide all rows of the scan that they complete."""
        along = self.axis + 1
        if not self.labels.numel():
            self.labels = torch.zeros(self.shape, dtype=torch.uint8, device=slab.device)
            self.rows = slab.narrow(along, 0, 0)
            copies = [part.to(slab.device) for part in (self.lower, self.upper, self.weight)]
            self.there = (copies[0], copies[1], copies[2])
        self.rows = torch.cat([self.rows, slab], along) if self.rows.shape[along] else slab
        available = self.first + self.rows.shape[along]
        ready = int(torch.searchsorted(self.upper, available))
        together = len(slab) if self.of_logits and self.ids is None else 1
        values = together * math.prod(self.shape)
        step = max(1, self.block_voxels * self.shape[self.axis] // values)
        for begin in range(self.decided, ready, step):
            self._decide(slice(begin, min(begin + step, ready)))
        self.decided = ready
        needed = int(self.lower[ready]) if ready < len(self.lower) else available
        first = min(needed, available)
        self.rows = self.rows.narrow(along, first - self.first, available - first)
        self.first = first

    def _decide(self, block: slice) -> None:
        """Decide some rows of the scan's grid."""
        classes: Iterable[Tensor] = self._interpolated(block)
        if self.of_logits:
            classes = _probabilities(classes, exclusive=self.ids is None)
        if self.observer is not None:
            classes = self.observer(block, classes)
        decided = most_probable(classes, self.ids)
        self.labels.narrow(self.axis, block.start, block.stop - block.start).copy_(decided)

    def _interpolated(self, block: slice) -> Iterator[Float[Tensor, "x_ y_ z_"]]:
        """Yield the probabilities of these rows, interpolated class by class."""
        shape = list(self.shape)
        shape[self.axis] = block.stop - block.start
        lower, upper, weight = (part[block] for part in self.there)
        rows_between = bool(self.weight[block].any())  # else all lie on rows of model space
        lower = lower - self.first
        upper = upper - self.first
        for rows in self.rows:
            if self.nearest is not None:
                coarse, chosen = self.nearest
                rows = rows.index_select(coarse, chosen.to(rows.device))
            between = (upper, weight) if rows_between else None
            yield _interpolate(rows, self.axis, lower, between, shape)


def _probabilities(logits: Iterable[Tensor], exclusive: bool) -> Iterable[Tensor]:
    """Return the probabilities of labels that exclude one another, or of regions."""
    if exclusive:
        return torch.softmax(torch.stack(list(logits)), 0)
    return map(torch.sigmoid, logits)


def most_probable(
    classes: Iterable[Float[Tensor, "x y z"]], ids: Sequence[int] | None
) -> Integer[Tensor, "x y z"]:
    """Return the number of the most probable class, or the id of the last region above 0.5."""
    labels = torch.empty(0)
    best = torch.empty(0)
    for number, probability in enumerate(classes):
        if number == 0:
            labels = torch.zeros_like(probability, dtype=torch.uint8)
            best = probability
        if ids is not None:
            labels.masked_fill_(probability > 0.5, ids[number])
        elif number > 0:
            labels.masked_fill_(probability > best, number)
            best = torch.maximum(best, probability)
    return labels


def _neighbours(size: int, model_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each of `size` rows the two model rows that it lies between, and its weight.

    The weight is that of the upper one.
    """
    rows = torch.arange(size, dtype=torch.float64)
    position = ((rows + 0.5) * model_size / size - 0.5).clamp(0, model_size - 1)
    lower = position.long()
    return lower, (lower + 1).clamp(max=model_size - 1), (position - lower).float()


def _interpolate(
    volume: Float[Tensor, "x y z"],
    axis: int,
    lower: Tensor,
    between: tuple[Tensor, Tensor] | None,
    shape: Sequence[int],
) -> Float[Tensor, "x_ y_ z_"]:
    """Return one class, trilinearly interpolated: first along `axis`, then in the plane.

    Args:
        volume: the values of the class in model space.
        axis: the axis that is interpolated first.
        lower: the row below each row of the result.
        between: the row above each, and its weight; None where no row lies between two.
        shape: the shape of the result.
    """
    rows = volume.index_select(axis, lower)
    if between is not None:
        upper, weight = between
        broadcast = [1, 1, 1]
        broadcast[axis] = -1
        rows = rows.lerp(volume.index_select(axis, upper), weight.reshape(broadcast))
    return resize(rows[None], (shape[0], shape[1], shape[2]), "trilinear")[0]
