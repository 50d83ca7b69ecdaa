"""The U-Net, in 2D and 3D (Ronneberger 2015, arXiv:1505.04597; Cicek 2016, arXiv:1606.06650).

Level 0 is the finest. A long skip carries what the encoder made at level i across to level i of the decoder; a short
skip goes around layers inside a stage. Each is a switch of its own.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.blocks import CONV, ConvConfig, Size, StageConfig, downsampling, stage, upsampling
from segpipe.nets.skips import LONG_SKIPS


class UNet(nn.Module):
    """A U-Net whose skips are switches.

    Args:
        in_channels: image channels.
        out_channels: labels, the background included.
        channels: channels per level of the encoder, finest first.
        decoder_channels: likewise of the decoder, for each level but the coarsest.
        strides: per downsampling, for all axes or along each.
        kernels: per level, likewise.
        long_skips: `none`, `add`, `concat` or `gate` per level but the coarsest, finest first.
        skip_dropout: chance that a long skip is dropped whole in training.
        style: how every convolution is dressed, and whether it is 2D or 3D.
        encoder: what each level's stage is made of on the way down.
        decoder: likewise on the way up, for each level but the coarsest.
        down: per downsampling: strided convolution, max pooling, or a 1-wide convolution and max pooling.
        up: transposed convolution, or interpolation and a convolution.
        up_kernels: per level but the coarsest, of upsampling; 0 is the stride, or no convolution.
        up_keeps_channels: upsampling keeps the coarser level's channels; else it goes to the finer level's.
        up_bias: whether upsampling has a bias.
        deep_supervision: in training, give logits at every level but the coarsest.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        decoder_channels: Sequence[int],
        strides: Sequence[Size],
        kernels: Sequence[Size],
        long_skips: Sequence[str],
        style: ConvConfig,
        encoder: Sequence[StageConfig],
        decoder: Sequence[StageConfig],
        *,
        skip_dropout: float = 0.0,
        down: Sequence[Literal["stride", "maxpool", "transition"]],
        up: Literal["transposed", "nearest", "linear"],
        up_kernels: Sequence[Size],
        up_keeps_channels: bool = False,
        up_bias: bool = True,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        levels = range(len(channels) - 1)
        self.stem = stage(style, encoder[0], in_channels, channels[0], kernels[0], stem=True)
        self.downs, self.ups, self.skips, self.decoder_stages = (nn.ModuleList() for _ in range(4))
        wide = [*decoder_channels, channels[-1]]
        for i in levels:
            pool, stride = downsampling(style, down[i], channels[i], strides[i])
            down_stage = stage(
                style, encoder[i + 1], channels[i], channels[i + 1], kernels[i + 1], stride
            )
            self.downs.append(nn.Sequential(pool, down_stage))
            risen = wide[i + 1] if up_keeps_channels else wide[i]
            self.ups.append(
                upsampling(style, up, wide[i + 1], risen, up_kernels[i], strides[i], up_bias)
            )
            join = LONG_SKIPS[long_skips[i]](style, risen, channels[i], skip_dropout)
            self.skips.append(join)
            self.decoder_stages.append(stage(style, decoder[i], join.channels, wide[i], kernels[i]))
        supervised = levels if deep_supervision else levels[:1]
        self.heads = nn.ModuleList(CONV[style.dims](wide[i], out_channels, 1) for i in supervised)

    def forward(
        self, x: Float[Tensor, "b c *space"]
    ) -> Float[Tensor, "b k *space"] | list[Float[Tensor, "b k *_"]]:
        """Logits of the same space as the image; under deep supervision in training a list of them, finest first."""
        x = self.stem(x)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(x)
        decoded = []
        for up, join, fuse in reversed(
            list(zip(self.ups, self.skips, self.decoder_stages, strict=True))
        ):
            x = fuse(join(up(x), skips.pop()))
            decoded.append(x)
        if self.training and len(self.heads) > 1:
            return [head(level) for head, level in zip(self.heads, reversed(decoded), strict=True)]
        return self.heads[0](x)
