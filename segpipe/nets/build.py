"""Build networks from the config; `build` is the only place that turns options into a network."""

import zlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from segpipe.config.model import AnyModel, Model, MonaiModel, per_level
from segpipe.nets.blocks import ConvConfig, StageConfig
from segpipe.nets.unet import UNet

PAIR = 2  # patches that a sketch is run with: a batch norm refuses to train on a single value
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def build(
    model: AnyModel,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
) -> nn.Module:
    """The network of these options, for these image channels and labels.

    Its weights lie in memory channels last, for which convolutions are faster (`benchmarks/step.py`).

    Args:
        model: the options.
        in_channels: image channels.
        out_channels: labels, the background included.
        strides: per downsampling, along each axis.
        kernels: per level, along each axis; an axis that is not 1 gets `model.kernel`.

    Raises:
        ConfigError: if it is a network of MONAI that cannot be built so.
    """
    if isinstance(model, MonaiModel):
        from segpipe.nets.monai import build_monai  # MONAI's networks take long to import

        return build_monai(model, in_channels, out_channels).to(
            memory_format=CHANNELS_LAST[model.dims]
        )  # type: ignore[call-overload]
    levels = len(model.channels)
    sizes = [[model.kernel if size > 1 else 1 for size in kernel] for kernel in kernels]
    up_kernel = (
        model.up_kernel
        if model.up_kernel is not None
        else 0
        if model.up == "transposed"
        else model.kernel
    )
    network = UNet(
        in_channels,
        out_channels,
        model.channels,
        model.decoder_channels or model.channels[:-1],
        strides,
        sizes,
        per_level(model.long_skips, levels - 1),
        ConvConfig(
            model.dims, model.norm, model.activation, model.order, model.dropout, model.conv_bias
        ),
        [_stage(model, "encoder", level) for level in range(levels)],
        [_stage(model, "decoder", level) for level in range(levels - 1)],
        skip_dropout=model.skip_dropout,
        down=per_level(model.down, levels - 1),
        up=model.up,
        up_kernels=[
            [up_kernel if size > 1 else min(up_kernel, 1) for size in kernel]
            for kernel in kernels[:-1]
        ],
        up_keeps_channels=model.up_keeps_channels,
        up_bias=model.up_bias,
        deep_supervision=model.deep_supervision,
    )
    return network.to(memory_format=CHANNELS_LAST[model.dims])  # type: ignore[call-overload]


def init_weights(network: nn.Module, seed: int) -> None:
    """Draws the weights of every layer anew, from the seed and the layer's name alone.

    Networks that differ in some layers then begin alike in all others of the same name and size, as the variants of a
    study should: what differs at the end is not the luck of the draw. The state of the global generator is kept.
    """
    for name, layer in network.named_modules():
        draw: Any = getattr(layer, "reset_parameters", None)
        if draw is not None:
            with torch.random.fork_rng():
                torch.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
                draw()


def build_meta(
    model: AnyModel,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
) -> nn.Module:
    """The network that `build` makes, on the `meta` device: all of it but its numbers."""
    if isinstance(model, MonaiModel):  # some look at numbers while they are built
        return build(model, in_channels, out_channels, strides, kernels).to("meta")
    with torch.device("meta"):
        return build(model, in_channels, out_channels, strides, kernels)


def check(model: AnyModel) -> None:
    """Refuses what cannot be built, before any data is read.

    Raises:
        ConfigError: for a network that MONAI has not, or that does not take its arguments.
    """
    build_meta(
        model, 1, 2, [[2] * model.dims] * (model.levels - 1), [[3] * model.dims] * model.levels
    )


def _stage(model: Model, part: Literal["encoder", "decoder"], level: int) -> StageConfig:
    inside, levels = part == "encoder", len(model.channels)
    skips = per_level(model.short_skips, levels)
    return StageConfig(
        block=per_level(
            model.block if inside or model.decoder_block is None else model.decoder_block, levels
        )[level],
        blocks=per_level(
            model.blocks if inside or model.decoder_blocks is None else model.decoder_blocks, levels
        )[level],
        convs=per_level(
            model.convs if inside or model.decoder_convs is None else model.decoder_convs, levels
        )[level],
        short_skips=skips[level] if model.short_skips_in in (part, "both") else "none",
        growth=model.growth_rate or 0,
        first=model.first_conv if inside else 1.0,
    )
