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


@LOSSES.register("tversky", help="Tversky loss: misses count 0.7, false alarms 0.3 (Salehi 2017)")
def tversky(batch):
    """Return one minus the mean Tversky index of a `segpipe.training.loss.LossInput`."""
    axes = [0, *range(2, batch.truth.ndim)]
    hits = (batch.probabilities * batch.truth).sum(axes)
    misses = batch.truth.sum(axes) - hits
    alarms = batch.probabilities.sum(axes) - hits
    index = (hits + 1e-5) / (hits + 0.7 * misses + 0.3 * alarms + 1e-5)
    return 1 - index[int(batch.exclusive) :].mean()
