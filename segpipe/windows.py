"""Volume -> patches -> volume; the only place where 2D and 3D data differ.

A patch always has three axes; for a 2D network the slice axis has one voxel, which `to_network` takes away and
`from_network` gives back.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn


def to_network(patches: Float[Tensor, "b c x y z"], slice_axis: int | None) -> Float[Tensor, "b c *space"]:
    """Patches as the network wants them: without the slice axis for a 2D network."""
    return patches if slice_axis is None else patches.squeeze(slice_axis + 2)


def from_network(logits: Float[Tensor, "b k *space"], slice_axis: int | None) -> Float[Tensor, "b k x y z"]:
    """Undoes `to_network`."""
    return logits if slice_axis is None else logits.unsqueeze(slice_axis + 2)


def predict_volume(
    network: nn.Module | Callable[[Tensor], Tensor],
    volume: Float[Tensor, "c x y z"],
    patch: tuple[int, int, int],
    slice_axis: int | None,
    overlap: float,
    windows: int,
    exclusive: bool = True,
) -> Float[Tensor, "k x y z"]:
    """Probabilities of a whole volume from overlapping windows, blended with Gaussian weights (Isensee 2021).

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        volume: the scan in model space; smaller than a patch is padded, and cropped again.
        patch: window size in voxels; 1 along `slice_axis`.
        slice_axis: the axis that a 2D network does not see; None for a 3D network.
        overlap: share of a window that its neighbour sees too, below 1.
        windows: how many windows are computed at once.
        exclusive: whether a voxel has just one label (softmax), or may lie in several regions (sigmoid).
    """

    def logits(batch: Tensor) -> Tensor:
        return from_network(network(to_network(batch, slice_axis)).float(), slice_axis)

    blended = sliding_window_inference(volume[None], patch, windows, logits, overlap, mode="gaussian")
    assert isinstance(blended, Tensor)
    return torch.softmax(blended[0], 0) if exclusive else torch.sigmoid(blended[0])
