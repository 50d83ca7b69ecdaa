"""Several predictions for one window averaged: of several networks, and of its mirror images."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of several networks and mirror images, as logits.

    Args:
        networks: each maps `(B, C, *spatial)` to logits `(B, K, *spatial)`.
        exclusive: whether a voxel has just one label (softmax), or may lie in several regions
            (sigmoid).
        mirror_axes: spatial axes along which the window is mirrored too, alone and together.
        mean: of their probabilities, or of their logits, as nnU-Net has it.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        exclusive: bool,
        mirror_axes: Sequence[int] = (),
        mean: Literal["probabilities", "logits"] = "probabilities",
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.exclusive = exclusive
        self.mirror_axes = tuple(mirror_axes)
        self.mean: Literal["probabilities", "logits"] = mean
        axes = [axis + 2 for axis in mirror_axes]
        self.flips: list[tuple[int, ...]] = []
        for count in range(len(axes) + 1):
            self.flips += itertools.combinations(axes, count)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Return the mean over networks and mirror images: as logits, or of the logits."""
        predictions = self._predictions(x)
        if self.mean == "logits":
            total = next(predictions)
            for logits in predictions:
                total = total + logits  # not in place, for exports
            return total / (len(self.networks) * len(self.flips))
        if not self.exclusive:
            mean = torch.stack(list(map(torch.sigmoid, predictions))).mean(0)
            return torch.logit(mean, eps=1e-6)
        log_sum = torch.log_softmax(next(predictions), 1)
        for logits in predictions:
            log_sum = torch.logaddexp(log_sum, torch.log_softmax(logits, 1))
        return log_sum - math.log(len(self.networks) * len(self.flips))

    def _predictions(self, x: Tensor) -> Iterator[Tensor]:
        for network in self.networks:
            for flip in self.flips:
                yield network(x.flip(flip)).float().flip(flip)
