"""The loss of a batch of patches: Dice and cross-entropy, over labels or over regions (Isensee 2021)."""

import torch
from jaxtyping import Float
from monai.losses.dice import DiceLoss
from monai.networks.utils import one_hot
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from segpipe.config.train import Optim
from segpipe.metrics import IGNORED
from segpipe.plan import Plan


class SegmentationLoss(nn.Module):
    """Soft Dice over the whole batch (Milletari 2016; the background left out) plus cross-entropy, each weighted.

    Voxels that nobody has annotated count in neither (Cicek 2016). Labels that exclude one another are compared by
    softmax, overlapping regions each by its own sigmoid.

    Args:
        plan: which labels or regions there are.
        options: the weights of both terms.
    """

    def __init__(self, plan: Plan, options: Optim) -> None:
        super().__init__()
        self.regions, self.ignores, self.options = plan.regions, plan.ignore is not None, options
        self.dice = DiceLoss(include_background=self.regions is not None, batch=True)

    def forward(
        self, logits: Float[Tensor, "b k *space"] | list[Float[Tensor, "b k *_"]], label: Tensor
    ) -> Float[Tensor, ""]:
        """The sum of the terms."""
        return torch.stack(list(self.terms(logits, label).values())).sum()

    def terms(self, logits: Tensor | list[Tensor], label: Tensor) -> dict[str, Tensor]:
        """Each term, weighted, of logits of one size or, under deep supervision, of several.

        Of several sizes each weighs half of the next finer one.

        Args:
            logits: one per label or region, or a list of such, finest first.
            label: ids inside, `(b, 1, *space)`.
        """
        outputs = [logits] if isinstance(logits, Tensor) else logits
        weights = [0.5**level for level in range(len(outputs))]
        sizes = [self._of_one_size(output.float(), _resized(label, output)) for output in outputs]
        return {
            name: torch.stack(
                [
                    weight / sum(weights) * of[name]
                    for weight, of in zip(weights, sizes, strict=True)
                ]
            ).sum()
            for name in sizes[0]
        }

    def _of_one_size(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        known = label != IGNORED
        label = label * known if self.ignores else label
        if self.regions is None:
            probable, truth = torch.softmax(logits, 1), one_hot(label, logits.shape[1])
            entropies = cross_entropy(logits, label[:, 0].long(), reduction="none")[:, None]
        else:
            inside = [
                torch.isin(label, torch.tensor(ids, device=label.device))
                for ids in self.regions.values()
            ]
            probable, truth = torch.sigmoid(logits), torch.cat(inside, 1).float()
            entropies = binary_cross_entropy_with_logits(logits, truth, reduction="none")
        if self.ignores:
            probable, truth = probable * known, truth * known
            entropy = (entropies * known).sum() / (known.expand_as(entropies).sum().clamp(min=1))
        else:
            entropy = entropies.mean()
        dice, weight = self.dice(probable, truth), self.options
        return {"Dice": weight.dice * dice, "cross-entropy": weight.cross_entropy * entropy}


def _resized(label: Tensor, like: Tensor) -> Tensor:
    same = label.shape[2:] == like.shape[2:]
    return label if same else interpolate(label, like.shape[2:], mode="nearest-exact")
