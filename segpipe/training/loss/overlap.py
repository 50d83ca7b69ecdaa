"""Terms that compare whole labels, as Dice does."""

import torch
from jaxtyping import Float
from torch import Tensor

from segpipe.registry import LOSSES
from segpipe.training.loss.loss_input import LossInput
from segpipe.training.loss.pooling import SMOOTH, hits_and_errors, pooled

# MONAI's 1e-5 is as large as what it is added to, which is 1 / voxels of a label
GENERALISED_SMOOTH = 1e-12


@LOSSES.register("tversky", help="Dice in which misses count more than false alarms (Salehi 2017)")
def tversky(batch: LossInput) -> Float[Tensor, ""]:
    """Return 1 minus the mean Tversky index `TP / (TP + alpha FP + beta FN)`, without background.

    Salehi 2017: https://arxiv.org/abs/1706.05721
    """
    first = batch.first
    probabilities = batch.probabilities[:, first:]
    hits, false_alarms, misses = hits_and_errors(
        probabilities, batch.truth[:, first:], decoupled=False
    )
    false_alarms = batch.options.tversky_alpha * false_alarms
    misses = batch.options.tversky_beta * misses
    return (1 - (hits + SMOOTH) / (hits + false_alarms + misses + SMOOTH)).mean()


@LOSSES.register("generalised_dice", help="one Dice of all labels, rare ones up (Sudre 2017)")
def generalised_dice(batch: LossInput) -> Float[Tensor, ""]:
    """Return 1 minus the Dice of all channels, each weighted by `1 / voxels^2` of its truth.

    The background is a label as any other, as in the paper. A label that no patch of the batch
    holds has the largest weight of the others.

    Sudre 2017: https://arxiv.org/abs/1707.03237
    """
    hits, false_alarms, misses = hits_and_errors(batch.probabilities, batch.truth)
    voxels = pooled(batch.truth.sum([0, *range(2, batch.truth.ndim)]))
    weights = torch.reciprocal(voxels * voxels)
    is_absent = torch.isinf(weights)
    weights = weights.masked_fill(is_absent, 0)
    weights = torch.where(is_absent, weights.max(), weights)
    above = 2 * (hits * weights).sum() + GENERALISED_SMOOTH
    both = 2 * (hits + 0.5 * false_alarms + 0.5 * misses)
    return 1 - above / ((both * weights).sum() + GENERALISED_SMOOTH)
