"""Several predictions for one window averaged: of several networks, and of its mirror images."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of several networks and mirror images, as logits.

    Args:
        networks: each maps `(B, C, *spatial)` to logits `(B, K, *spatial)`.
        exclusive: whether a voxel has just one label (softmax), or may lie in several regions
            (sigmoid).
        mirror_axes: spatial axes along which the window is mirrored too, alone and together.
        mean: the kind of mean: of their probabilities, or of their logits, as nnU-Net has it.
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
        self.agreements: dict[int, Agreement] = {}  # by the thread that measures one
        axes = [axis + 2 for axis in mirror_axes]
        self.flips: list[tuple[int, ...]] = []
        for count in range(len(axes) + 1):
            self.flips += itertools.combinations(axes, count)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Return the mean over networks and mirror images: as logits, or of the logits."""
        masks: list[Tensor] = []
        predictions = self._predictions(x)
        agreement = self.agreements.get(get_ident())
        if agreement is None:
            return self._mean(predictions)
        mean = self._mean(self._noting_masks(predictions, masks))
        agreement.add(masks, self._mask(mean))
        return mean

    def _mean(self, predictions: Iterator[Tensor]) -> Tensor:
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
        """Yield the logits of each network and mirror image, of which none is held here."""
        for network in self.networks:
            for flip in self.flips:
                yield network(x.flip(flip)).float().flip(flip)

    def _noting_masks(self, predictions: Iterator[Tensor], masks: list[Tensor]) -> Iterator[Tensor]:
        """Yield predictions again, after adding the mask of each to a list."""
        for logits in predictions:
            masks.append(self._mask(logits))
            yield logits

    def _mask(self, logits: Tensor) -> Tensor:
        """Return the classes `(k, voxels)` that logits speak for; of labels, not the background."""
        if not self.exclusive:
            return (logits > 0).transpose(0, 1).flatten(1)
        labels = logits.argmax(1).flatten()
        return torch.stack([labels == number for number in range(1, logits.shape[1])])


@contextmanager
def measuring(network: nn.Module) -> Iterator["Agreement | None"]:
    """Measure how far masks of single predictions are those of the mean, while the block lasts.

    Only predictions of this thread count. Gives None where the network is no ensemble.
    """
    if not isinstance(network, Ensemble):
        yield None
        return
    agreement = Agreement()
    network.agreements[get_ident()] = agreement
    try:
        yield agreement
    finally:
        del network.agreements[get_ident()]


class Agreement:
    """Voxels that single predictions and their mean give to each class, over all windows.

    Attributes:
        common: voxels that both give to a class.
        either: voxels of the one and of the other, added up.
    """

    def __init__(self) -> None:
        self.common = torch.zeros(0)
        self.either = torch.zeros(0)

    def add(
        self, masks: Sequence[Bool[Tensor, "k voxels"]], mean: Bool[Tensor, "k voxels"]
    ) -> None:
        """Add the windows of one batch."""
        for mask in masks:
            common = (mask & mean).sum(1).cpu()
            either = (mask.sum(1) + mean.sum(1)).cpu()
            self.common = common if not self.common.numel() else self.common + common
            self.either = either if not self.either.numel() else self.either + either

    @property
    def dice(self) -> list[float]:
        """Return the Dice of each class; NaN where no prediction has it."""
        return (2 * self.common / self.either).tolist()
