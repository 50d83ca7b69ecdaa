"""The loss of a batch of patches: a weighted sum of registered terms, over labels or over regions.

A term is a function registered with `@LOSSES.register`, here or in an extension file:

    @LOSSES.register("squared_error", help="mean squared error of the probabilities")
    def squared_error(batch: LossInput) -> Float[Tensor, ""]:
        return batch.mean((batch.probabilities - batch.truth) ** 2)

Its weight is the key of its name in the config's group `loss`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from monai.losses.dice import DiceLoss
from monai.networks.utils import one_hot
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torch.nn.functional import cross_entropy as softmax_cross_entropy

from segpipe.metrics import IGNORED
from segpipe.plan import Plan
from segpipe.registry import LOSSES

FOCUS = 2.0  # gamma of the focal loss, the value that Lin 2017 recommends


@dataclass(frozen=True)
class LossInput:
    """What a loss term compares, at one resolution.

    Attributes:
        logits: as the network gives them, `(B, K, *spatial)`, one channel per label or region.
        probabilities: their softmax (labels) or sigmoid (regions); 0 in unannotated voxels.
        truth: 0 or 1 per label or region; 0 in unannotated voxels.
        label: indices of the labels, `(B, *spatial)`; 0 in unannotated voxels.
        known: False in unannotated voxels, which must not count (Cicek 2016); None where all are
            annotated.
        exclusive: True where labels exclude one another and channel 0 is the background; False for
            regions, which may overlap and have no background.
    """

    logits: Float[Tensor, "b k *space"]
    probabilities: Float[Tensor, "b k *space"]
    truth: Float[Tensor, "b k *space"]
    label: Integer[Tensor, "b *space"]
    known: Bool[Tensor, "b 1 *space"] | None
    exclusive: bool

    @property
    def entropies(self) -> Float[Tensor, "b c *space"]:
        """Return the cross-entropy per voxel, `c` = 1, or per voxel and region."""
        if self.exclusive:
            return softmax_cross_entropy(self.logits, self.label.long(), reduction="none")[:, None]
        return binary_cross_entropy_with_logits(self.logits, self.truth, reduction="none")

    def mean(self, values: Float[Tensor, "b c *space"]) -> Float[Tensor, ""]:
        """Return the mean over annotated voxels and channels; 0 where no voxel is annotated."""
        if self.known is None:
            return values.mean()
        number = self.known.sum() * values.shape[1]
        return (values * self.known).sum() / number.clamp(min=1)


LossTerm = Callable[[LossInput], Tensor]


@LOSSES.register("dice", help="soft Dice over the whole batch, without background (Milletari 2016)")
def dice(batch: LossInput) -> Float[Tensor, ""]:
    """Return 1 minus the mean soft Dice of the labels or regions."""
    compare = DiceLoss(include_background=not batch.exclusive, batch=True)
    return compare(batch.probabilities, batch.truth)


@LOSSES.register("cross_entropy", help="mean cross-entropy of the annotated voxels")
def cross_entropy(batch: LossInput) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over voxels, and over regions where they overlap."""
    return batch.mean(batch.entropies)


@LOSSES.register("focal", help="cross-entropy with less weight on easy voxels (Lin 2017, gamma 2)")
def focal(batch: LossInput) -> Float[Tensor, ""]:
    """Return the mean of `(1 - p)^2 * -log(p)`, where p is the probability of the truth."""
    hits = batch.probabilities * batch.truth
    if batch.exclusive:
        of_truth = hits.sum(1, keepdim=True)
    else:
        of_truth = hits + (1 - batch.probabilities) * (1 - batch.truth)
    return batch.mean((1 - of_truth) ** FOCUS * batch.entropies)


class SegmentationLoss(nn.Module):
    """A weighted sum of registered terms.

    Labels that exclude one another are compared by softmax, overlapping regions each by its own
    sigmoid. Unannotated voxels count in no term.

    Args:
        plan: the labels or regions.
        weights: weight of each term by registered name; terms of weight 0 are not computed.

    Raises:
        ConfigError: if a name is not registered.
    """

    def __init__(self, plan: Plan, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.regions = plan.regions
        self.ignores = plan.ignore is not None
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.functions: dict[str, LossTerm] = {name: LOSSES[name] for name in self.weights}

    def forward(
        self, logits: Float[Tensor, "b k *space"] | list[Float[Tensor, "b k *_"]], label: Tensor
    ) -> Float[Tensor, ""]:
        """Return the sum of the weighted terms; arguments as of `terms`."""
        return torch.stack(list(self.terms(logits, label).values())).sum()

    def terms(self, logits: Tensor | list[Tensor], label: Tensor) -> dict[str, Tensor]:
        """Return each weighted term by name.

        Under deep supervision each resolution weighs half of the next finer one; the weights of
        all resolutions sum to 1.

        Args:
            logits: `(B, K, *spatial)` with one channel per label or region, or a list of such,
                finest first.
            label: label indices, `(B, 1, *spatial)`; `IGNORED` where nobody has annotated.
        """
        outputs = [logits] if isinstance(logits, Tensor) else logits
        total = sum(0.5**level for level in range(len(outputs)))
        sums = dict.fromkeys(self.weights, torch.zeros((), device=label.device))
        for level, output in enumerate(outputs):
            share = 0.5**level / total
            terms = self._at_one_resolution(output.float(), _resized(label, output))
            for name, term in terms.items():
                sums[name] = sums[name] + share * self.weights[name] * term
        return sums

    def _at_one_resolution(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the unweighted terms for logits and labels of one size."""
        known = label != IGNORED if self.ignores else None
        if known is not None:
            label = label * known
        probabilities, truth = self._compared(logits, label)
        if known is not None:
            probabilities = probabilities * known
            truth = truth * known
        exclusive = self.regions is None
        batch = LossInput(logits, probabilities, truth, label[:, 0], known, exclusive)
        terms = {}
        for name, function in self.functions.items():
            terms[name] = function(batch)
        return terms

    def _compared(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and one-hot truth, `(B, K, *spatial)` each."""
        if self.regions is None:
            return torch.softmax(logits, 1), one_hot(label, logits.shape[1])
        masks = []
        for indices in self.regions.values():
            masks.append(torch.isin(label, torch.tensor(indices, device=label.device)))
        return torch.sigmoid(logits), torch.cat(masks, 1).float()


def _resized(label: Tensor, output: Tensor) -> Tensor:
    """Return the label at the resolution of an output, by nearest neighbour."""
    if label.shape[2:] == output.shape[2:]:
        return label
    return interpolate(label, output.shape[2:], mode="nearest-exact")
