"""A long skip and a loss term of one's own; used in docs/howto/extensions.md."""

import torch
from torch import Tensor, nn

from segpipe.nets.blocks import ConvConfig
from segpipe.nets.skips import AddSkip
from segpipe.registry import LONG_SKIPS, LOSSES


@LONG_SKIPS.register("scaled_add", help="a sum, the skip scaled per channel", colour="#CC79A7")
class ScaledAddSkip(AddSkip):
    """The sum of both, after the skip is scaled by a learnt weight per channel."""

    def __init__(self, config: ConvConfig, up_channels: int, skip_channels: int, drop: float):
        super().__init__(config, up_channels, skip_channels, drop)
        self.scale = nn.Parameter(torch.ones(skip_channels, *[1] * config.dims))

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """Return `(B, C, *spatial)`."""
        return self.project(up) + self.scale * skip


@LOSSES.register("jaccard", help="soft intersection over union, without background (Rahman 2016)")
def jaccard(batch):
    """Return one minus the mean overlap of a `segpipe.training.loss.LossInput`."""
    axes = [0, *range(2, batch.truth.ndim)]
    common = (batch.probabilities * batch.truth).sum(axes)
    union = batch.probabilities.sum(axes) + batch.truth.sum(axes) - common
    overlap = (common + 1e-5) / (union + 1e-5)
    return 1 - overlap[batch.first :].mean()
