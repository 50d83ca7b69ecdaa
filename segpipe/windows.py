"""Volume -> windows -> volume, streamed; the only place where 2D and 3D data differ.

A patch always has three axes; for a 2D network the slice axis has one voxel, which `to_network` takes away and
`from_network` gives back.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

PIECE = 2**22  # values that are handed on at once: 16 MiB


def to_network(
    patches: Num[Tensor, "b c x y z"], slice_axis: int | None
) -> Num[Tensor, "b c *space"]:
    """Patches as the network wants them: without the slice axis for a 2D network."""
    return patches if slice_axis is None else patches.squeeze(slice_axis + 2)


def from_network(
    logits: Float[Tensor, "b k *space"], slice_axis: int | None
) -> Float[Tensor, "b k x y z"]:
    """Undoes `to_network`."""
    return logits if slice_axis is None else logits.unsqueeze(slice_axis + 2)


def slab_axis(shape: Sequence[int], slice_axis: int | None) -> int:
    """The axis along which a volume `(x, y, z)` is finished bit by bit: across slices, else the longest."""
    return slice_axis if slice_axis is not None else max(range(3), key=lambda axis: shape[axis])


def count_windows(shape: Sequence[int], patch: Sequence[int], overlap: float) -> int:
    """How many windows `predict_slabs` takes of a volume `(x, y, z)`."""
    return math.prod(
        len(_starts(max(size, edge), edge, overlap))
        for size, edge in zip(shape, patch, strict=True)
    )


def predict_slabs(
    network: nn.Module | Callable[[Tensor], Tensor],
    volume: Float[Tensor, "c x y z"],
    patch: Sequence[int],
    slice_axis: int | None,
    overlap: float,
    windows: int,
    exclusive: bool = True,
) -> Iterator[Float[Tensor, "k x_ y_ z_"]]:
    """Probabilities from overlapping windows, blended with Gaussian weights (Isensee 2021), slab by slab.

    The slabs follow one another along `slab_axis` and together make the volume. One is given as soon as no later window
    reaches into it, so that never more than what is still open lies in memory.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        volume: the scan in model space; smaller than a patch is padded, and cropped again. Windows are put together on
            its device, wherever the network computes.
        patch: window size in voxels; 1 along `slice_axis`.
        slice_axis: the axis that a 2D network does not see; None for a 3D network.
        overlap: share of a window that its neighbour sees too, below 1.
        windows: how many windows are computed at once.
        exclusive: whether a voxel has just one label (softmax), or may lie in several regions (sigmoid).
    """
    axis = slab_axis(volume.shape[1:], slice_axis)
    before = [max(0, edge - size) // 2 for edge, size in zip(patch, volume.shape[1:], strict=True)]
    padded = _padded(volume, patch, before)
    starts = [
        _starts(size, edge, overlap) for size, edge in zip(padded.shape[1:], patch, strict=True)
    ]
    places = sorted(itertools.product(*starts), key=lambda place: place[axis])
    weight = _blending(patch).to(volume.device)
    batches = [places[number : number + windows] for number in range(0, len(places), windows)]
    room = patch[axis] + max(batch[-1][axis] - batch[0][axis] for batch in batches)
    still_open: Tensor | None = (
        None  # sums of weighted logits, and of weights, from this batch's first row on
    )
    for batch, later in itertools.pairwise([*batches, None]):
        assert batch is not None
        patches = torch.stack([_window(padded, place, patch) for place in batch])
        logits = from_network(
            network(to_network(patches, slice_axis)).float().to(volume.device), slice_axis
        )
        if still_open is None:
            shape = [room if way == axis else size for way, size in enumerate(padded.shape[1:])]
            still_open = logits.new_zeros(logits.shape[1] + 1, *shape)
        first = batch[0][axis]
        for place, one in zip(batch, logits, strict=True):
            inside = _window(
                still_open, [at - first * (way == axis) for way, at in enumerate(place)], patch
            )
            inside[:-1].addcmul_(one, weight)  # `+=` would copy the result onto itself
            inside[-1:].add_(weight)
        ready = later[0][axis] if later else padded.shape[axis + 1]
        if ready == first:
            continue
        finished = still_open.narrow(axis + 1, 0, ready - first)
        for piece, row in _pieces(finished, axis, first):
            cropped = _cropped(piece, volume.shape[1:], before, axis, row)
            if cropped.numel():
                blended = cropped[:-1] / cropped[-1:]
                yield torch.softmax(blended, 0) if exclusive else torch.sigmoid(blended)
        if later:
            _forget(still_open, axis, ready - first)


def _pieces(finished: Tensor, axis: int, first: int) -> Iterator[tuple[Tensor, int]]:
    """Some rows at a time, and the number of the first of them: what is made of them is soon used and gone."""
    rows = max(1, PIECE * finished.shape[axis + 1] // max(1, finished.numel()))
    for row in range(0, finished.shape[axis + 1], rows):
        yield finished.narrow(axis + 1, row, min(rows, finished.shape[axis + 1] - row)), first + row


def _forget(rows: Tensor, axis: int, count: int) -> None:
    """Moves rows forward in their place, over the first `count` ones; class by class, to need no second copy of all."""
    for one in rows:
        left = one.shape[axis] - count
        one.narrow(axis, 0, left).copy_(one.narrow(axis, count, left).clone())
        one.narrow(axis, left, count).zero_()


def _starts(size: int, edge: int, overlap: float) -> list[int]:
    """Where windows begin along an axis: at equal steps, the last one at the end."""
    return [*range(0, size - edge, max(1, int(edge * (1 - overlap)))), size - edge]


def _blending(patch: Sequence[int]) -> Float[Tensor, "1 x y z"]:
    """Gaussian over the window, deviation an eighth of its edges, nowhere below 1e-3: the weights that MONAI has."""
    weight = torch.ones(())
    for edge in patch:
        away = torch.arange(edge) - (edge - 1) / 2
        weight = weight[..., None] * torch.exp(-(away**2) / (2 * (edge / 8) ** 2))
    return weight.clamp(min=1e-3)[None]


def _padded(volume: Tensor, patch: Sequence[int], before: Sequence[int]) -> Tensor:
    rims = []
    for size, edge, low in reversed(list(zip(volume.shape[1:], patch, before, strict=True))):
        rims += [low, max(0, edge - size) - low]
    return nn.functional.pad(volume, rims) if any(rims) else volume


def _window(volume: Tensor, place: Sequence[int], patch: Sequence[int]) -> Tensor:
    return volume[
        (slice(None), *(slice(at, at + edge) for at, edge in zip(place, patch, strict=True)))
    ]


def _cropped(
    finished: Tensor, shape: Sequence[int], before: Sequence[int], axis: int, first: int
) -> Tensor:
    """Undoes `_padded` for rows of the padded volume from `first` on."""
    for way, (size, low) in enumerate(zip(shape, before, strict=True)):
        at = low - first if way == axis else low
        begin, end = max(0, at), max(0, min(finished.shape[way + 1], at + size))
        finished = finished.narrow(way + 1, min(begin, end), max(0, end - begin))
    return finished
