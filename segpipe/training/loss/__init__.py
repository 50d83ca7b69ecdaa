"""The loss of a batch of patches: a weighted sum of registered terms, over labels or over regions.

A term is a function registered with `@LOSSES.register`, here or in an extension file:

    @LOSSES.register("squared_error", help="mean squared error of the probabilities")
    def squared_error(batch: LossInput) -> Float[Tensor, ""]:
        return batch.mean((batch.probabilities - batch.truth) ** 2)

Its weight is the key of its name in the config's group `loss`. The built-in terms stand here and in
the other modules of this package.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, log_softmax

from segpipe.config.train import Loss
from segpipe.errors import ConfigError
from segpipe.metrics import IGNORED
from segpipe.plan import Plan
from segpipe.registry import LOSSES
from segpipe.text import nearest
from segpipe.training.loss.pooling import hits_and_errors, pooled, ratio_of_means

SMOOTH = 1e-5  # voxels, as MONAI has it
WHOLE = "needs_whole_annotation"  # attribute of a term's function, set by `whole_annotation`


@dataclass(frozen=True)
class TermOptions:
    """What the terms can be told beside their weight; the defaults are those of the papers.

    Attributes:
        class_weights: of each channel of the logits in cross-entropy and focal loss; None: all 1.
        focal_gamma: power of the focal loss.
        tversky_alpha: weight of false alarms in the Tversky index.
        tversky_beta: weight of misses.
        top_k_share: share of the voxels that the top-k cross-entropy counts.
        cldice_steps: erosions by which clDice finds centre lines, as many as the radius of the
            widest tube in voxels.
        cldice_channels: channels of the logits that clDice compares; None: all but the background.
    """

    class_weights: Sequence[float] | None = None
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
        logits: as the network gives them, `(B, K, *spatial)`, one channel per label or region.
        probabilities: their softmax (labels) or sigmoid (regions); 0 in unannotated voxels.
        truth: 0 or 1 per label or region; 0 in unannotated voxels.
        label: indices of the labels, `(B, *spatial)`; 0 in unannotated voxels.
        known: False in unannotated voxels, which must not count (Cicek 2016); None where all are
            annotated.
        exclusive: True where labels exclude one another and channel 0 is the background; False for
            regions, which may overlap and have no background.
        options: of the terms.
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
            rows = log_softmax(self.logits.movedim(1, -1), -1)  # see `_softmax`
            return -rows.gather(-1, self.label.long()[..., None]).movedim(-1, 1)
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
        weights = values.new_tensor(given)
        if self.exclusive:
            per_value = weights[self.label.long()][:, None]
        else:
            per_value = weights.reshape(1, -1, *[1] * (values.ndim - 2)).expand_as(values)
        smallest = torch.finfo(values.dtype).tiny  # where no voxel is annotated
        return ratio_of_means(self.mean(values * per_value), self.mean(per_value), smallest)


LossTerm = Callable[[LossInput], Tensor]


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


def whole_annotation(term: LossTerm) -> LossTerm:
    """Mark a term that has no meaning where part of a patch is not annotated."""
    setattr(term, WHOLE, True)
    return term


class SegmentationLoss(nn.Module):
    """A weighted sum of registered terms.

    Labels that exclude one another are compared by softmax, overlapping regions each by its own
    sigmoid. Unannotated voxels count in no term.

    Args:
        plan: the labels or regions.
        weights: weight of each term by registered name; terms of weight 0 are not computed.
        options: of the terms; None: those of the papers.

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
        self.regions = plan.regions
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
        outputs = [logits] if isinstance(logits, Tensor) else logits
        total = sum(0.5**level for level in range(len(outputs)))
        sums = dict.fromkeys(self.weights, torch.zeros((), device=label.device))
        for level, output in enumerate(outputs):
            share = 0.5**level / total
            spacing = self._spacing_of(label, output)
            terms = self._at_one_resolution(output.float(), _resized(label, output), spacing)
            for name, term in terms.items():
                sums[name] = sums[name] + share * self.weights[name] * term
        return sums

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
        exclusive = self.regions is None
        batch = LossInput(
            logits,
            probabilities,
            truth,
            label[:, 0],
            known,
            exclusive,
            self.options,
            spacing,
        )
        terms = {}
        for name, function in self.functions.items():
            terms[name] = function(batch)
        return terms

    def _compared(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and one-hot truth, `(B, K, *spatial)` each."""
        if self.regions is None:
            return _softmax(logits), torch.zeros_like(logits).scatter_(1, label.long(), 1.0)
        masks = []
        for indices in self.regions.values():
            masks.append(torch.isin(label, torch.tensor(indices, device=label.device)))
        return torch.sigmoid(logits), torch.cat(masks, 1).float()


def _softmax(logits: Tensor) -> Tensor:
    """Return the softmax over the channels, which stay last in memory where they are.

    PyTorch's own over dimension 1 first copies such logits, as its cross-entropy does; with many
    labels the copies take longer than all else.
    """
    return torch.softmax(logits.movedim(1, -1), -1).movedim(-1, 1)


def _resized(label: Tensor, output: Tensor) -> Tensor:
    """Return the label at the resolution of an output, by nearest neighbour."""
    if label.shape[2:] == output.shape[2:]:
        return label
    return interpolate(label, output.shape[2:], mode="nearest-exact")
