"""The loss of a batch of patches: a weighted sum of registered terms, over labels or over regions.

A term is a function registered with `@LOSSES.register`, here or in an extension file:

    @LOSSES.register("squared_error", help="mean squared error of the probabilities")
    def squared_error(batch: LossInput) -> Float[Tensor, ""]:
        return batch.mean((batch.probabilities - batch.truth) ** 2)

Its weight is the key of its name in the config's group `loss`. The built-in terms stand here and in
the other modules of this package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segpipe.config.train import Loss
from segpipe.errors import ConfigError
from segpipe.metrics import IGNORED
from segpipe.plan import Plan
from segpipe.registry import LOSSES
from segpipe.training.loss.loss_input import (
    WHOLE,
    LossInput,
    LossTerm,
    TermOptions,
    whole_annotation,
)
from segpipe.training.loss.pooling import SMOOTH, hits_and_errors

__all__ = ["LossInput", "LossTerm", "SegmentationLoss", "TermOptions", "whole_annotation"]


@LOSSES.register("dice", help="soft Dice over the whole batch, without background (Milletari 2016)")
def dice(batch: LossInput) -> Float[Tensor, ""]:
    """Return 1 minus the mean soft Dice of the labels or regions."""
    hits, false_alarms, misses = hits_and_errors(batch.probabilities, batch.truth)
    voxels = 2 * (hits + 0.5 * false_alarms + 0.5 * misses)
    losses = 1 - (2 * hits + SMOOTH) / (voxels + SMOOTH)
    return losses[batch.first :].mean()  # the gradient of a part of the channels would be copied


@LOSSES.register("cross_entropy", help="mean cross-entropy; with loss.class_weights, weighted")
def cross_entropy(batch: LossInput) -> Float[Tensor, ""]:
    """Return the weighted mean cross-entropy over voxels, and over regions where they overlap."""
    return batch.class_mean(batch.entropies)


@LOSSES.register("focal", help="cross-entropy with less weight on easy voxels (Lin 2017)")
def focal(batch: LossInput) -> Float[Tensor, ""]:
    """Return the mean of `(1 - p)^gamma * -log(p)`, where p is the probability of the truth.

    Lin 2017: https://arxiv.org/abs/1708.02002
    """
    hits = batch.probabilities * batch.truth
    if batch.exclusive:
        of_truth = hits.sum(1, keepdim=True)
    else:
        of_truth = hits + (1 - batch.probabilities) * (1 - batch.truth)
    # 1 - p may be -1e-8 by rounding, and a negative number has no power
    misses = (1 - of_truth).clamp(min=0)
    return batch.class_mean(misses**batch.options.focal_gamma * batch.entropies)


class SegmentationLoss(nn.Module):
    """A weighted sum of registered terms.

    Labels that exclude one another are compared by softmax, overlapping regions each by its own
    sigmoid. Unannotated voxels count in no term.

    Args:
        plan: the labels or regions.
        weights: weight of each term by registered name; terms of weight 0 are not computed.
        options: the options of the terms; None: those of the papers.

    Raises:
        ConfigError: if a name is not registered, a term has no meaning under the plan, or an option
            names what is neither a label nor a region.
    """

    def __init__(
        self, plan: Plan, weights: Mapping[str, float], options: Loss | None = None
    ) -> None:
        super().__init__()
        self.options = TermOptions() if options is None else TermOptions.of(options, plan)
        self.spacing = [plan.spacing_mm[axis] or 1.0 for axis in plan.network_axes]
        # no buffers, which the running mean of the weights would average, integers included
        self.regions = [torch.tensor(indices) for indices in (plan.regions or {}).values()]
        self.class_weights: Tensor | None = None
        if self.options.class_weights is not None:
            self.class_weights = torch.tensor(self.options.class_weights)
        self.ignores = plan.ignore is not None
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.functions: dict[str, LossTerm] = {name: LOSSES[name] for name in self.weights}
        for name, function in self.functions.items():
            if self.ignores and getattr(function, WHOLE, False):
                raise ConfigError(
                    f"loss.{name} needs every voxel of a patch annotated, but voxels of "
                    f"{plan.ignore} are not (data.ignore_label): set loss.{name}=0"
                )

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
        self._to_device(label.device)
        outputs = [logits] if isinstance(logits, Tensor) else logits
        total = sum(0.5**level for level in range(len(outputs)))
        sums = dict.fromkeys(self.weights, torch.zeros((), device=label.device))
        for level, output in enumerate(outputs):
            share = 0.5**level / total
            spacing = self._spacing_of(label, output)
            # a softmax over few channels that are last in memory takes several times as long
            logits = output.float().contiguous()
            terms = self._at_one_resolution(logits, _resized(label, output), spacing)
            for name, term in terms.items():
                sums[name] = sums[name] + share * self.weights[name] * term
        return sums

    def _to_device(self, device: torch.device) -> None:
        """Move what terms compare with to the device, once: later steps need not wait for it."""
        self.regions = [ids.to(device) for ids in self.regions]
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(device)

    def _spacing_of(self, label: Tensor, output: Tensor) -> list[float]:
        """Return the edges of an output's voxels relative to the shortest."""
        edges = []
        for axis, spacing in enumerate(self.spacing, start=2):
            edges.append(spacing * label.shape[axis] / output.shape[axis])
        return [edge / min(edges) for edge in edges]

    def _at_one_resolution(
        self, logits: Tensor, label: Tensor, spacing: Sequence[float]
    ) -> dict[str, Tensor]:
        """Return the unweighted terms for logits and labels of one size."""
        known = label != IGNORED if self.ignores else None
        if known is not None:
            label = label * known
        probabilities, truth = self._compared(logits, label)
        if known is not None:
            probabilities = probabilities * known
            truth = truth * known
        batch = LossInput(
            logits,
            probabilities,
            truth,
            label[:, 0],
            known,
            not self.regions,
            replace(self.options, class_weights=self.class_weights),
            spacing,
        )
        terms = {}
        for name, function in self.functions.items():
            terms[name] = function(batch)
        return terms

    def _compared(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and one-hot truth, `(B, K, *spatial)` each."""
        if not self.regions:
            return torch.softmax(logits, 1), torch.zeros_like(logits).scatter_(1, label.long(), 1.0)
        masks = []
        for ids in self.regions:
            masks.append(torch.isin(label, ids))
        return torch.sigmoid(logits), torch.cat(masks, 1).float()


def _resized(label: Tensor, output: Tensor) -> Tensor:
    """Return the label at the resolution of an output, by nearest neighbour."""
    if label.shape[2:] == output.shape[2:]:
        return label
    return interpolate(label, output.shape[2:], mode="nearest-exact")
