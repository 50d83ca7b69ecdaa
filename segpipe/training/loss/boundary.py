"""The boundary loss: how far from the true surface the probability lies."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from segpipe.registry import LOSSES
from segpipe.training.loss.loss_input import LossInput


@LOSSES.register("boundary", help="distance of the probability from the surface (Kervadec 2019)")
def boundary(batch: LossInput) -> Float[Tensor, ""]:
    """Return the mean of probability times signed distance to the surface of the truth.

    The distance is negative inside, and is measured in the shortest edge of a voxel, so values are
    of the order of ten: weights of 0.01 suit, beside an overlap loss. It is 0 where a patch
    lacks the label or holds nothing else, so the term says nothing there. The background of labels
    is left out.

    Kervadec 2019: https://arxiv.org/abs/1812.07032
    """
    probabilities = batch.probabilities[:, batch.first :]
    distances = _distances(batch).to(probabilities)
    return batch.mean(probabilities * distances)


def _distances(batch: LossInput) -> Float[Tensor, "b c *space"]:
    """Return the signed distances of all channels but the background, on the CPU."""
    truth = batch.truth[:, batch.first :].bool().cpu().numpy()
    unknown = np.zeros_like(truth[:, 0])
    if batch.known is not None:
        unknown = ~batch.known[:, 0].cpu().numpy()
    distances = np.zeros(truth.shape, np.float32)
    for patch, channels in enumerate(truth):
        for channel, mask in enumerate(channels):
            distances[patch, channel] = signed_distance(mask, unknown[patch], batch.spacing)
    return torch.from_numpy(distances)


def signed_distance(
    mask: Bool[np.ndarray, "*space"],
    unknown: Bool[np.ndarray, "*space"],
    spacing: Sequence[float] | None,
) -> Float[np.ndarray, "*space"]:
    """Return the distance to the nearest voxel across the surface: below 0 inside, above outside.

    As in the paper's code, a voxel inside that touches the surface has 0 and one outside 1.

    Args:
        mask: the label.
        unknown: voxels that belong neither to the inside nor to the outside.
        spacing: edges of a voxel; None: 1.
    """
    outside = ~mask & ~unknown
    if not mask.any() or not outside.any():
        return np.zeros(mask.shape)
    edge = 1.0 if spacing is None else min(spacing)
    to_inside = np.asarray(distance_transform_edt(~mask, spacing))
    to_outside = np.asarray(distance_transform_edt(~outside, spacing))
    return np.where(mask, edge - to_outside, to_inside)
