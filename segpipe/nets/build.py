"""Build networks from the config; `build` is the only place that turns options into a network."""

import zlib
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from segpipe.config.model import AnyModel, Model, MonaiModel, per_level
from segpipe.nets.blocks import StageConfig
from segpipe.nets.conv import ConvConfig
from segpipe.nets.foreign import build_foreign
from segpipe.nets.unet import UNet

PAIR = 2  # samples of a trial batch: a batch norm refuses to train on a single value
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
T = TypeVar("T")


def build(
    model: AnyModel,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
) -> nn.Module:
    """Build the network of these options for these image channels and labels.

    Its weights lie channels last in memory, which makes convolutions faster (`benchmarks/step.py`).

    Args:
        model: the options.
        in_channels: image channels.
        out_channels: labels, the background included.
        strides: the stride of each downsampling, along each axis.
        kernels: the kernel of each level, along each axis; an axis that is not 1 gets
            `model.kernel`.

    Raises:
        ConfigError: if a network, skip or block is not registered, or refuses its arguments.
    """
    if isinstance(model, MonaiModel):
        network = build_foreign(model, in_channels, out_channels)
    else:
        network = _build_unet(model, in_channels, out_channels, strides, kernels)
    _to_channels_last(network, model.dims)
    return network


def _build_unet(
    model: Model,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
) -> UNet:
    levels = len(model.widths)
    return UNet(
        in_channels,
        out_channels,
        model.widths,
        model.decoder_channels or model.widths[:-1],
        strides,
        [_kernel(kernel, model.kernel) for kernel in kernels],
        per_level(model.long_skips, levels - 1),
        ConvConfig(
            model.dims, model.norm, model.activation, model.order, model.dropout, model.conv_bias
        ),
        [_stage_config(model, "encoder", level) for level in range(levels)],
        [_stage_config(model, "decoder", level) for level in range(levels - 1)],
        skip_dropout=model.skip_dropout,
        down=per_level(model.down, levels - 1),
        up=model.up,
        up_kernels=[_kernel(kernel, _up_kernel(model)) for kernel in kernels[:-1]],
        up_keeps_channels=model.up_keeps_channels,
        up_bias=model.up_bias,
        deep_supervision=model.deep_supervision,
    )


def _kernel(planned: Sequence[int], size: int) -> list[int]:
    """Return a kernel of this size, but 1 wide along axes that are still too coarse."""
    return [size if planned_size > 1 else min(size, 1) for planned_size in planned]


def _up_kernel(model: Model) -> int:
    """Return the kernel of upsampling; 0 is the stride of a transposed convolution."""
    if model.up_kernel is not None:
        return model.up_kernel
    return 0 if model.up == "transposed" else model.kernel


def _stage_config(model: Model, part: Literal["encoder", "decoder"], level: int) -> StageConfig:
    """Return the options of one stage of the encoder or the decoder."""
    levels = len(model.widths)

    def at_level(encoder: T | list[T], decoder: T | list[T] | None) -> T:
        same = part == "encoder" or decoder is None
        return per_level(encoder if same else decoder, levels)[level]  # type: ignore[arg-type]

    return StageConfig(
        block=at_level(model.block, model.decoder_block),
        blocks=at_level(model.blocks, model.decoder_blocks),
        convs=at_level(model.convs, model.decoder_convs),
        short_skips=short_skip_at(model, part, level),
        growth=model.growth_rate or 0,
        first=model.first_conv if part == "encoder" else 1.0,
    )


def short_skip_at(model: Model, part: str, level: int) -> str:
    """Return the short skip of a stage of the `encoder` or the `decoder`."""
    if model.short_skips_in not in (part, "both"):
        return "none"
    return per_level(model.short_skips, len(model.widths))[level]


def _to_channels_last(network: nn.Module, dims: int) -> None:
    """Lay the weights of convolutions out channels last; weights of other ranks stay."""
    for parameter in network.parameters():
        if parameter.ndim == dims + 2:
            parameter.data = parameter.data.to(memory_format=CHANNELS_LAST[dims])


def init_weights(network: nn.Module, seed: int) -> None:
    """Initialise every layer anew, from the seed and the layer's name alone.

    Networks that differ in some layers then begin alike in all others of the same name and size, as
    the variants of a study should. The state of the global generator is kept.
    """
    for name, layer in network.named_modules():
        reset: Any = getattr(layer, "reset_parameters", None)
        if reset is not None:
            with torch.random.fork_rng(devices=[]):  # a network is initialised on the CPU
                torch.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
                reset()


def build_meta(
    model: AnyModel,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
) -> nn.Module:
    """Build the network of `build` on the `meta` device, where tensors have shapes but no values.

    Raises:
        ConfigError: as `build` does.
    """
    if isinstance(model, MonaiModel):  # some read values while they are built
        return build(model, in_channels, out_channels, strides, kernels).to("meta")
    with torch.device("meta"):
        return build(model, in_channels, out_channels, strides, kernels)


def check(model: AnyModel) -> None:
    """Check that a network can be built, before any data is read and it is planned.

    Raises:
        ConfigError: as `build` does.
    """
    if isinstance(model, Model):
        model = model.small()
    strides = [[2] * model.dims] * (model.levels - 1)
    kernels = [[3] * model.dims] * model.levels
    build_meta(model, 1, 2, strides, kernels)
