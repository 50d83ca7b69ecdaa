"""The U-Net, in 2D and 3D (Ronneberger 2015, arXiv:1505.04597; Cicek 2016, arXiv:1606.06650).

Level 0 is the finest. A long skip carries what the encoder made at level i across to level i of the
decoder; a short skip goes around layers inside a stage. Each is a switch of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segpipe.nets.blocks import StageConfig, stage
from segpipe.nets.conv import CONV, ConvConfig, Size
from segpipe.nets.resampling import downsampling, upsampling
from segpipe.registry import LONG_SKIPS

RENAMED_PARTS = {"joins": "skips", "fuses": "decoder_stages"}  # until version 0.1.0


class UNet(nn.Module):
    """A U-Net whose skips are switches.

    Args:
        in_channels: image channels.
        out_channels: labels, the background included.
        channels: channels of the encoder per level, finest first.
        decoder_channels: channels of the decoder per level but the coarsest, finest first.
        strides: the stride of each downsampling, for all axes or along each.
        kernels: the kernel of each level, for all axes or along each.
        long_skips: a registered long skip per level but the coarsest, finest first.
        config: the settings of every convolution, and whether the network is 2D or 3D.
        encoder: the options of each level's stage on the way down.
        decoder: the options of each level's stage on the way up, without the coarsest level.
        skip_dropout: probability that a sample's long skip is dropped in training.
        down: the kind of each downsampling: strided convolution, max pooling, or a 1-wide
            convolution and max pooling.
        up: the kind of upsampling: transposed convolution, or interpolation and a convolution.
        up_kernels: the kernels of upsampling, per level but the coarsest; 0 is the stride, or no
            convolution.
        up_keeps_channels: whether upsampling keeps the coarser level's channels; else it goes to
            the finer level's.
        up_bias: whether upsampling has a bias.
        deep_supervision: whether to return logits at every level but the coarsest, in training.

    Attributes:
        recomputes: whether training keeps only what goes from stage to stage, and computes the
            inside of a stage again for the backward pass.
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
        config: ConvConfig,
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
        self.recomputes = False
        self.stem = stage(config, encoder[0], in_channels, channels[0], kernels[0], stem=True)
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.skips = nn.ModuleList()
        self.decoder_stages = nn.ModuleList()
        below = [*decoder_channels, channels[-1]]  # channels that come up from level i
        for i, fine in enumerate(channels[:-1]):
            pool, stride = downsampling(config, down[i], fine, strides[i])
            encode = stage(config, encoder[i + 1], fine, channels[i + 1], kernels[i + 1], stride)
            self.downs.append(nn.Sequential(pool, encode))
            raised = below[i + 1] if up_keeps_channels else below[i]
            grow = upsampling(config, up, below[i + 1], raised, up_kernels[i], strides[i], up_bias)
            self.ups.append(grow)
            skip = LONG_SKIPS[long_skips[i]](config, raised, fine, skip_dropout)
            self.skips.append(skip)
            decode = stage(config, decoder[i], skip.channels, below[i], kernels[i])
            self.decoder_stages.append(decode)
        self.heads = _heads(config, below[:-1], out_channels, deep_supervision)

    def forward(
        self, x: Float[Tensor, "b c *space"]
    ) -> Float[Tensor, "b k *space"] | list[Float[Tensor, "b k *_"]]:
        """Return logits of the image's size.

        Under deep supervision, in training, return a list with those of every level, finest first.
        """
        x = self._computed(self.stem, x)
        encoded = []
        for down in self.downs:
            encoded.append(x)
            x = self._computed(down, x)
        decoded = []
        for i in reversed(range(len(self.ups))):
            decode = partial(self._decode, i)
            x = self._computed(decode, x, encoded.pop())  # popped, so that it can be freed
            decoded.insert(0, x)
        if self.training and len(self.heads) > 1:
            return [head(level) for head, level in zip(self.heads, decoded, strict=True)]
        return self.heads[0](x)

    def _decode(self, level: int, below: Tensor, encoded: Tensor) -> Tensor:
        """Return what the decoder makes of the level below and of the long skip."""
        return self.decoder_stages[level](self.skips[level](self.ups[level](below), encoded))

    def _computed(self, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Return what a part of the network makes of its inputs."""
        if not self.recomputes or not self.training:
            return part(*inputs)
        found: Any = checkpoint(part, *inputs, use_reentrant=False)
        return found


def _heads(
    config: ConvConfig, widths: Sequence[int], out_channels: int, deep_supervision: bool
) -> nn.ModuleList:
    """Return the convolutions that make logits, of each level or of the finest alone.

    Args:
        config: the network's convolutions.
        widths: channels of the decoder per level, finest first.
        out_channels: labels, the background included.
        deep_supervision: whether each level has one.
    """
    heads = nn.ModuleList()
    for width in widths if deep_supervision else widths[:1]:
        heads.append(CONV[config.dims](width, out_channels, 1))
    return heads


def renamed_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights of any version under the names that a U-Net's parts have now."""
    found = {}
    for name, weight in weights.items():
        parts = [RENAMED_PARTS.get(part, part) for part in name.split(".")]
        found[".".join(parts)] = weight
    return found
