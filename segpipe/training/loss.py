"""The loss of a batch of patches: Dice and cross-entropy, over labels or over regions (Isensee 2021)."""

import torch
from jaxtyping import Float
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from segpipe.config.train import Optim
from segpipe.plan import Plan


class SegmentationLoss(nn.Module):
    """Soft Dice over the whole batch (Milletari 2016; the background left out) plus cross-entropy, each weighted.

    Labels that exclude one another are compared by softmax, overlapping regions each by its own sigmoid.

    Args:
        plan: which labels or regions there are.
        options: the weights of both terms.
    """

    def __init__(self, plan: Plan, options: Optim) -> None:
        super().__init__()
        self.regions, self.options = plan.regions, options
        exclusive = self.regions is None
        self.dice = DiceLoss(
            include_background=not exclusive,
            to_onehot_y=exclusive,
            softmax=exclusive,
            sigmoid=not exclusive,
            batch=True,
        )

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
                [weight / sum(weights) * of[name] for weight, of in zip(weights, sizes, strict=True)]
            ).sum()
            for name in sizes[0]
        }

    def _of_one_size(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        if self.regions is None:
            entropy, truth = cross_entropy(logits, label[:, 0].long()), label
        else:
            inside = [torch.isin(label, torch.tensor(ids, device=label.device)) for ids in self.regions.values()]
            truth = torch.cat(inside, 1).float()
            entropy = binary_cross_entropy_with_logits(logits, truth)
        dice, weight = self.dice(logits, truth), self.options
        return {"Dice": weight.dice * dice, "cross-entropy": weight.cross_entropy * entropy}


def _resized(label: Tensor, like: Tensor) -> Tensor:
    same = label.shape[2:] == like.shape[2:]
    return label if same else interpolate(label, like.shape[2:], mode="nearest-exact")
