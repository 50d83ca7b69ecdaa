"""Long skips: how a level of the decoder takes what the encoder made at the same level.

A new one is a registered class: what it is called, what it does and the colour it is drawn in stand
in its decorator, and nothing else has to change.

    @LONG_SKIPS.register("add", help="the sum of both", colour="#0072B2")
    class AddSkip(LongSkip): ...

The attribute `channels` says how many channels `join` returns.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.conv import CONV, ConvConfig
from segpipe.registry import LONG_SKIPS


class LongSkip(nn.Module):
    """The base class of long skips: drops the skip at random in training, then joins.

    Args:
        config: the network's convolutions.
        up_channels: channels of the upsampled features.
        skip_channels: channels of the encoder's features at this level.
        drop: probability that a sample's skip is set to 0 as a whole in training (stochastic depth,
            Huang 2016).

    Attributes:
        channels: channels that `join` returns.
    """

    def __init__(
        self, config: ConvConfig, up_channels: int, skip_channels: int, drop: float
    ) -> None:
        super().__init__()
        self.drop = drop
        self.channels = up_channels

    def forward(
        self, up: Float[Tensor, "b c *s"], skip: Float[Tensor, "b c_skip *s"]
    ) -> Float[Tensor, "b c_join *s"]:
        """Return the input of the decoder's stage, with `channels` channels."""
        if self.training and self.drop:
            skip = self._drop_samples(skip)
        return self.join(up, skip)

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """Join the upsampled features `(B, C, *spatial)` and the skip `(B, C', *spatial)`."""
        raise NotImplementedError

    def _drop_samples(self, skip: Tensor) -> Tensor:
        shape = [len(skip)] + [1] * (skip.ndim - 1)
        kept = torch.rand(shape, device=skip.device) >= self.drop
        return skip * kept / (1 - self.drop)


@LONG_SKIPS.register("none", help="the decoder sees nothing of the encoder", colour="#999999")
class NoSkip(LongSkip):
    """No long skip."""

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """Return `up` alone."""
        return up


@LONG_SKIPS.register("add", help="sum of both", colour="#0072B2")
class AddSkip(LongSkip):
    """The sum of both, as in ResNet (He 2016) and LinkNet (Chaurasia 2017).

    Where the channels differ, `up` is projected to the skip's; the skip stays as it is
    (Drozdzal 2016).
    """

    def __init__(
        self, config: ConvConfig, up_channels: int, skip_channels: int, drop: float
    ) -> None:
        super().__init__(config, up_channels, skip_channels, drop)
        self.channels = skip_channels
        same = up_channels == skip_channels
        self.project = nn.Identity() if same else CONV[config.dims](up_channels, skip_channels, 1)

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """Return the sum."""
        return self.project(up) + skip


@LONG_SKIPS.register("concat", help="concatenation of both", colour="#009E73")
class ConcatSkip(LongSkip):
    """Both side by side, as in the U-Net (Ronneberger 2015)."""

    def __init__(
        self, config: ConvConfig, up_channels: int, skip_channels: int, drop: float
    ) -> None:
        super().__init__(config, up_channels, skip_channels, drop)
        self.channels = up_channels + skip_channels

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """Return the channels of `up`, then those of `skip`."""
        return torch.cat([up, skip], 1)


@LONG_SKIPS.register("gate", help="attention gate, then concatenation", colour="#D55E00")
class GateSkip(ConcatSkip):
    """Both side by side, the skip weighted voxel by voxel (Attention U-Net, Oktay 2018).

    The weight is that of the additive gate: `sigmoid(psi(relu(W_skip skip + W_up up)))`.
    """

    def __init__(
        self, config: ConvConfig, up_channels: int, skip_channels: int, drop: float
    ) -> None:
        super().__init__(config, up_channels, skip_channels, drop)
        conv = CONV[config.dims]
        gate_channels = max(1, skip_channels // 2)
        self.of_skip = conv(skip_channels, gate_channels, 1)
        self.of_up = conv(up_channels, gate_channels, 1)
        self.psi = conv(gate_channels, 1, 1)

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """Return the channels of `up`, then those of the weighted skip."""
        weight = torch.sigmoid(self.psi(torch.relu(self.of_skip(skip) + self.of_up(up))))
        return torch.cat([up, skip * weight], 1)
