"""What loss terms compare, which is outputs of a network and the truth, and their options."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from segpipe.config.train import Loss
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.text import nearest
from segpipe.training.loss.pooling import pooled, ratio_of_means

WHOLE = "needs_whole_annotation"  # attribute of a term's function, set by `whole_annotation`


@dataclass(frozen=True)
class TermOptions:
    """What the terms can be told beside their weight; the defaults are those of the papers.

    Attributes:
        class_weights: the class weights of each channel of the logits in cross-entropy and focal
            loss; None: all 1.
        focal_gamma: power of the focal loss.
        tversky_alpha: weight of false alarms in the Tversky index.
        tversky_beta: weight of misses.
        top_k_share: share of the voxels that the top-k cross-entropy counts.
        cldice_steps: erosions by which clDice finds centre lines, as many as the radius of the
            widest tube in voxels.
        cldice_channels: channels of the logits that clDice compares; None: all but the background.
    """

    class_weights: Sequence[float] | Tensor | None = None
    focal_gamma: float = 2.0
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    top_k_share: float = 0.1
    cldice_steps: int = 3
    cldice_channels: Sequence[int] | None = None

    @classmethod
    def of(cls, options: Loss, plan: Plan) -> "TermOptions":
        """Return the options of a config for a network with the plan's labels or regions.

        Raises:
            ConfigError: if a name is neither a label nor a region of the plan.
        """
        names = list(plan.regions or plan.labels)
        weights = None
        if options.class_weights:
            indices = _channels(options.class_weights, names, "class_weights")
            weights = [1.0] * len(names)
            for index, weight in zip(indices, options.class_weights.values(), strict=True):
                weights[index] = weight
        channels = None
        if options.cldice_labels is not None:
            channels = _channels(options.cldice_labels, names, "cldice_labels")
        return cls(
            weights,
            options.focal_gamma,
            options.tversky_alpha,
            options.tversky_beta,
            options.top_k_share,
            options.cldice_steps,
            channels,
        )


def _channels(given: Iterable[str], names: Sequence[str], key: str) -> list[int]:
    """Return the channels of the logits that names mean.

    Raises:
        ConfigError: for a name that is none of `names`.
    """
    found = []
    for name in given:
        if name not in names:
            raise ConfigError(
                f"loss.{key}: {name} is none of {', '.join(names)}.{nearest(name, names)}"
            )
        found.append(names.index(name))
    return found


@dataclass(frozen=True)
class LossInput:
    """What a loss term compares, at one resolution.

    Attributes:
        logits: the logits as the network gives them, `(B, K, *spatial)`, one channel per label or
            region.
        probabilities: their softmax (labels) or sigmoid (regions); 0 in unannotated voxels.
        truth: 0 or 1 per label or region; 0 in unannotated voxels.
        label: indices of the labels, `(B, *spatial)`; 0 in unannotated voxels.
        known: False in unannotated voxels, which must not count (Cicek 2016); None where all are
            annotated.
        exclusive: True where labels exclude one another and channel 0 is the background; False for
            regions, which may overlap and have no background.
        options: the options of the terms.
        spacing: edges of a voxel along the spatial axes, relative to the shortest of them; None:
            all are alike.
    """

    logits: Float[Tensor, "b k *space"]
    probabilities: Float[Tensor, "b k *space"]
    truth: Float[Tensor, "b k *space"]
    label: Integer[Tensor, "b *space"]
    known: Bool[Tensor, "b 1 *space"] | None
    exclusive: bool
    options: TermOptions = field(default_factory=TermOptions)
    spacing: Sequence[float] | None = None

    @property
    def first(self) -> int:
        """Return the number of the first channel that is not the background."""
        return int(self.exclusive)

    @property
    def entropies(self) -> Float[Tensor, "b c *space"]:
        """Return the cross-entropy per voxel, `c` = 1, or per voxel and region."""
        if self.exclusive:
            return cross_entropy(self.logits, self.label.long(), reduction="none")[:, None]
        return binary_cross_entropy_with_logits(self.logits, self.truth, reduction="none")

    def mean(self, values: Float[Tensor, "b c *space"]) -> Float[Tensor, ""]:
        """Return the mean over annotated voxels and channels; 0 where no voxel is annotated."""
        if self.known is None:  # as many values on every device, over which DDP takes the mean
            return values.mean()
        number = pooled(self.known.sum()) * values.shape[1]
        return pooled((values * self.known).sum()) / number.clamp(min=1)

    def class_mean(self, values: Float[Tensor, "b c *space"]) -> Float[Tensor, ""]:
        """Return the mean in which a voxel counts as much as the class weight of its label.

        Of regions, each channel counts as much as the class weight of its region.
        """
        given = self.options.class_weights
        if given is None:
            return self.mean(values)
        weights = torch.as_tensor(given).to(values)
        if self.exclusive:
            per_value = weights[self.label.long()][:, None]
        else:
            per_value = weights.reshape(1, -1, *[1] * (values.ndim - 2)).expand_as(values)
        smallest = torch.finfo(values.dtype).tiny  # where no voxel is annotated
        return ratio_of_means(self.mean(values * per_value), self.mean(per_value), smallest)


LossTerm = Callable[[LossInput], Tensor]


def whole_annotation(term: LossTerm) -> LossTerm:
    """Mark a term that has no meaning where part of a patch is not annotated."""
    setattr(term, WHOLE, True)
    return term
