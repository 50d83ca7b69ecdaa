"""Long skips: how a decoder level meets the encoder level of its own size. A new one is a class and an entry here."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.blocks import CONV, ConvConfig


class NoSkip(nn.Module):
    """The decoder sees nothing of the encoder's level.

    Args:
        style: of the network.
        up: channels from below.
        skip: channels that the encoder made at this level.
        drop: chance that a case's skip is dropped whole in training (stochastic depth, Huang 2016).
    """

    def __init__(self, style: ConvConfig, up: int, skip: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.channels = up

    def forward(
        self, up: Float[Tensor, "b c *s"], skip: Float[Tensor, "b c_skip *s"]
    ) -> Float[Tensor, "b c_join *s"]:
        """What the decoder goes on with, with `channels` channels."""
        return self.join(up, self._dropped(skip))

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """`up` alone."""
        return up

    def _dropped(self, skip: Tensor) -> Tensor:
        if not (self.training and self.drop):
            return skip
        kept = torch.rand(len(skip), *[1] * (skip.ndim - 1), device=skip.device) >= self.drop
        return skip * kept / (1 - self.drop)


class AddSkip(NoSkip):
    """The sum of both, as in ResNet (He 2016) and LinkNet (Chaurasia 2017).

    Where channels differ, what comes from below is projected to the skip's, which goes across as it is (Drozdzal 2016).
    """

    def __init__(self, style: ConvConfig, up: int, skip: int, drop: float) -> None:
        super().__init__(style, up, skip, drop)
        self.channels = skip
        self.project = nn.Identity() if up == skip else CONV[style.dims](up, skip, 1)

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """The sum."""
        return self.project(up) + skip


class ConcatSkip(NoSkip):
    """Both side by side, as in the U-Net (Ronneberger 2015)."""

    def __init__(self, style: ConvConfig, up: int, skip: int, drop: float) -> None:
        super().__init__(style, up, skip, drop)
        self.channels = up + skip

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """`skip` behind `up`."""
        return torch.cat([up, skip], 1)


class GateSkip(ConcatSkip):
    """Both side by side, after what comes from below has weighted the skip voxel by voxel (Oktay 2018).

    The additive gate of Attention U-Net: `sigmoid(psi(relu(W_x skip + W_g up)))`.
    """

    def __init__(self, style: ConvConfig, up: int, skip: int, drop: float) -> None:
        super().__init__(style, up, skip, drop)
        conv, inner = CONV[style.dims], max(1, skip // 2)
        self.of_skip, self.of_up, self.psi = (
            conv(skip, inner, 1),
            conv(up, inner, 1),
            conv(inner, 1, 1),
        )

    def join(self, up: Tensor, skip: Tensor) -> Tensor:
        """The weighted skip behind `up`."""
        weight = torch.sigmoid(self.psi(torch.relu(self.of_skip(skip) + self.of_up(up))))
        return torch.cat([up, skip * weight], 1)


LONG_SKIPS: dict[str, type[NoSkip]] = {
    "none": NoSkip,
    "add": AddSkip,
    "concat": ConcatSkip,
    "gate": GateSkip,
}
