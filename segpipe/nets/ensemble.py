"""Several answers to one window, given as one: of several networks, and to the window and its mirror images."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of the probabilities that several networks give to a window and its mirror images, as logits.

    Args:
        networks: each maps `(b, c, *space)` to logits `(b, k, *space)`.
        exclusive: whether a voxel has just one label (softmax), or may lie in several regions (sigmoid).
        mirror_axes: axes of `space` along which the window is mirrored too, alone and together.
    """

    def __init__(
        self, networks: Sequence[nn.Module], exclusive: bool, mirror_axes: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.networks, self.exclusive, self.mirror_axes = (
            nn.ModuleList(networks),
            exclusive,
            tuple(mirror_axes),
        )
        axes = [axis + 2 for axis in mirror_axes]
        self.flips = [
            flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)
        ]

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Logits whose softmax, or sigmoid, is the mean over networks and mirror images."""
        ways = list(itertools.product(self.networks, self.flips))
        answers = (network(x.flip(flip)).float().flip(flip) for network, flip in ways)
        if not self.exclusive:
            return torch.logit(
                torch.stack([torch.sigmoid(answer) for answer in answers]).mean(0), eps=1e-6
            )
        mean = torch.log_softmax(next(answers), 1)
        for answer in answers:
            mean = torch.logaddexp(mean, torch.log_softmax(answer, 1))
        return mean - math.log(len(ways))
