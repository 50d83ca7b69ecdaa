"""Networks from the config: `build` is the only place that turns options into a network."""

from collections.abc import Sequence

from torch import nn

from segpipe.config.model import Model
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
        kernels: per level, along each axis.
    """
    levels = len(model.channels) - 1
    return UNet(model.dims, in_channels, out_channels, model.channels, strides, kernels, model.skips_per_level(levels))
