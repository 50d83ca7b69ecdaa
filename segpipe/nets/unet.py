"""The U-Net, in 2D and 3D (Ronneberger 2015, arXiv:1505.04597; Cicek 2016, arXiv:1606.06650).

Level 0 is the finest. A long skip carries what the encoder made at level i across to level i of the decoder; each is a
switch of its own.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class NoSkip(nn.Module):
    """The decoder sees nothing of the encoder's level."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(
        self, up: Float[Tensor, "b c *space"], skip: Float[Tensor, "b c *space"]
    ) -> Float[Tensor, "b c *space"]:
        """`up` alone."""
        return up


class AddSkip(NoSkip):
    """The sum of both, as ResNet adds (He 2016)."""

    def forward(
        self, up: Float[Tensor, "b c *space"], skip: Float[Tensor, "b c *space"]
    ) -> Float[Tensor, "b c *space"]:
        """The sum."""
        return up + skip


class ConcatSkip(NoSkip):
    """Both side by side, as DenseNet and the U-Net have it."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__(dims, 2 * channels)

    def forward(
        self, up: Float[Tensor, "b c *space"], skip: Float[Tensor, "b c *space"]
    ) -> Float[Tensor, "b c2 *space"]:
        """Channels of `skip` behind those of `up`."""
        return torch.cat([up, skip], 1)


LONG_SKIPS: dict[str, type[NoSkip]] = {"none": NoSkip, "add": AddSkip, "concat": ConcatSkip}


class UNet(nn.Module):
    """A U-Net whose long skips are switches.

    Args:
        dims: 2 for images, 3 for volumes.
        in_channels: image channels.
        out_channels: labels, the background included.
        channels: channels per level, finest first.
        strides: per downsampling, along each axis.
        kernels: per level, along each axis.
        long_skips: `none`, `add` or `concat` per level but the coarsest, finest first.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernels: Sequence[Sequence[int]],
        long_skips: Sequence[str],
    ) -> None:
        super().__init__()
        up = TRANSPOSED[dims]
        levels = range(len(channels) - 1)
        self.stem = _stage(dims, in_channels, channels[0], kernels[0])
        self.downs = nn.ModuleList(
            _stage(dims, channels[i], channels[i + 1], kernels[i + 1], strides[i]) for i in levels
        )
        self.ups = nn.ModuleList(up(channels[i + 1], channels[i], strides[i], strides[i]) for i in levels)
        self.joins = nn.ModuleList(LONG_SKIPS[long_skips[i]](dims, channels[i]) for i in levels)
        self.fuses = nn.ModuleList(_stage(dims, int(self.joins[i].channels), channels[i], kernels[i]) for i in levels)  # type: ignore[arg-type]
        self.head = CONV[dims](channels[0], out_channels, 1)

    def forward(self, x: Float[Tensor, "b c_in *space"]) -> Float[Tensor, "b c_out *space"]:
        """Logits of the same space as the image."""
        x = self.stem(x)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(x)
        for up, join, fuse in reversed(list(zip(self.ups, self.joins, self.fuses, strict=True))):
            x = fuse(join(up(x), skips.pop()))
        return self.head(x)


def _stage(
    dims: int, in_channels: int, channels: int, kernel: Sequence[int], stride: Sequence[int] | int = 1
) -> nn.Sequential:
    """Two convolutions, each normalised (instance norm, Ulyanov 2016) and rectified; the first one may stride."""
    layers: list[nn.Module] = []
    for i in range(2):
        inside, step = (in_channels, stride) if i == 0 else (channels, 1)
        padding = [size // 2 for size in kernel]
        layers.append(CONV[dims](inside, channels, tuple(kernel), step, padding, bias=False))
        layers += [NORM[dims](channels, affine=True), nn.LeakyReLU(0.01, inplace=True)]
    return nn.Sequential(*layers)
