"""Networks from the config: `build` is the only place that turns options into a network."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from segpipe.config.model import Model
from segpipe.nets.blocks import StageOptions, Style
from segpipe.nets.unet import UNet


def build(
    model: Model,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
) -> nn.Module:
    """The network of these options, for these image channels and labels.

    Args:
        model: the options.
        in_channels: image channels.
        out_channels: labels, the background included.
        strides: per downsampling, along each axis.
        kernels: per level, along each axis; an axis that is not 1 gets `model.kernel`.
    """
    return UNet(
        in_channels,
        out_channels,
        model.channels,
        strides,
        [[model.kernel if size > 1 else 1 for size in kernel] for kernel in kernels],
        model.skips_per_level,
        Style(model.dims, model.norm, model.activation, model.order, model.dropout, model.conv_bias),
        [_stage(model, "encoder", level) for level in range(len(model.channels))],
        [_stage(model, "decoder", level) for level in range(len(model.channels) - 1)],
        skip_dropout=model.skip_dropout,
        down=model.down,
        up=model.up,
        up_keeps_channels=model.up_keeps_channels,
        up_bias=model.up_bias,
        deep_supervision=model.deep_supervision,
    )


def _stage(model: Model, part: Literal["encoder", "decoder"], level: int) -> StageOptions:
    inside = part == "encoder"
    blocks = model.blocks if inside or model.decoder_blocks is None else model.decoder_blocks
    convs = model.convs if inside or model.decoder_convs is None else model.decoder_convs
    return StageOptions(
        block=model.block if inside or model.decoder_block is None else model.decoder_block,
        blocks=blocks if isinstance(blocks, int) else blocks[level],
        convs=convs if isinstance(convs, int) else convs[level],
        short_skips=model.short_skips if model.short_skips_in in (part, "both") else "none",
        growth=model.growth_rate or 0,
        first=model.first_conv if inside else 1.0,
    )
