"""Cross-entropy of the voxels that the network finds hardest."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from segpipe.registry import LOSSES
from segpipe.training.loss.loss_input import LossInput
from segpipe.training.loss.pooling import gathered


@LOSSES.register("top_k", help="cross-entropy of the voxels with the most loss (Wu 2016)")
def top_k(batch: LossInput) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the `loss.top_k_share` of the voxels that have the most.

    Of regions, the entropies of all regions are ranked together. Only annotated voxels are ranked.

    Wu 2016: https://arxiv.org/abs/1605.06885
    """
    entropies = batch.entropies
    if batch.known is not None:
        entropies = entropies[batch.known.expand_as(entropies)]
    entropies = gathered(entropies)
    number = math.ceil(batch.options.top_k_share * entropies.numel())
    if number == 0:  # no voxel is annotated
        return batch.mean(batch.entropies)
    return torch.topk(entropies.flatten(), number, sorted=False).values.mean()
