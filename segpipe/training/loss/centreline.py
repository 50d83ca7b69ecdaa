"""clDice: overlap of centre lines, for vessels and other tubes that must not be torn."""

import torch
from jaxtyping import Float
from monai.losses.cldice import soft_erode, soft_open
from torch import Tensor, relu
from torch.utils.checkpoint import checkpoint

from segpipe.registry import LOSSES
from segpipe.training.loss.loss_input import LossInput, whole_annotation
from segpipe.training.loss.pooling import pooled

SMOOTH = 1.0  # voxels, as in the paper's code


@LOSSES.register("cldice", help="overlap of the centre lines of tubes (Shit 2021)")
@whole_annotation
def cldice(batch: LossInput) -> Float[Tensor, ""]:
    """Return 1 minus the mean clDice of the labels or regions that `loss.cldice_labels` names.

    clDice is the harmonic mean of two shares: that of the predicted centre line inside the true
    tube, and that of the true centre line inside the predicted tube. Centre lines are found by
    soft erosion. The background of labels is left out.

    Shit 2021: https://arxiv.org/abs/2003.07311
    """
    channels = batch.options.cldice_channels
    if channels is None:
        channels = range(batch.first, batch.truth.shape[1])
    chosen = list(channels)
    probabilities = batch.probabilities[:, chosen]
    truth = batch.truth[:, chosen]
    true_line = centre_line(truth, batch.options.cldice_steps)
    line = centre_line(probabilities, batch.options.cldice_steps)
    precision = _share(line, truth)
    sensitivity = _share(true_line, probabilities)
    return 1 - (2 * precision * sensitivity / (precision + sensitivity)).mean()


def centre_line(tube: Float[Tensor, "b c *space"], steps: int) -> Float[Tensor, "b c *space"]:
    """Return the soft centre line of a tube: MONAI's `soft_skel` in less memory.

    Each step is computed again in the backward pass, since what all of them hold would be many
    times the logits.
    """
    line = relu(tube - soft_open(tube))
    for _ in range(steps):
        tube, line = checkpoint(_eroded, tube, line, use_reentrant=False)  # type: ignore[misc]
    return line


def _eroded(tube: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tube without its outermost voxels, and the centre line found so far."""
    inner = soft_erode(tube)
    ridge = relu(inner - soft_open(inner))
    return inner, line + relu(ridge - line * ridge)


def _share(line: Float[Tensor, "b c *space"], tube: Float[Tensor, "b c *space"]) -> Tensor:
    """Return the share of a centre line that lies in a tube, per channel `(c,)`."""
    axes = [0, *range(2, line.ndim)]
    inside, total = pooled(torch.stack([(line * tube).sum(axes), line.sum(axes)]))
    return (inside + SMOOTH) / (total + SMOOTH)
