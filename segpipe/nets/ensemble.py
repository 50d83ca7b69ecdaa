"""Several networks that answer as one."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of the probabilities that several networks give, as logits.

    Args:
        networks: each maps `(b, c, *space)` to logits `(b, k, *space)`.
        exclusive: whether a voxel has just one label (softmax), or may lie in several regions (sigmoid).
    """

    def __init__(self, networks: Sequence[nn.Module], exclusive: bool) -> None:
        super().__init__()
        self.networks, self.exclusive = nn.ModuleList(networks), exclusive

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Logits whose softmax, or sigmoid, is the mean of the networks'."""
        if self.exclusive:
            answers = [torch.log_softmax(network(x).float(), 1) for network in self.networks]
            return torch.logsumexp(torch.stack(answers), 0) - math.log(len(answers))
        mean = torch.stack([torch.sigmoid(network(x).float()) for network in self.networks]).mean(0)
        return torch.logit(mean, eps=1e-6)
