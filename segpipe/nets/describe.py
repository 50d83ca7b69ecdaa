"""A network described stage by stage: measured by running it on the `meta` device, without data."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segpipe.config.model import AnyModel, Model, MonaiModel, per_level
from segpipe.errors import ConfigError
from segpipe.nets.build import PAIR, build_meta, short_skip_at
from segpipe.nets.stages import Recorder, stage_parts
from segpipe.text import first_line, times

MIB = 2**20


@dataclass(frozen=True)
class Stage:
    """One stage of a network, for one patch.

    Attributes:
        name: `encoder 0`, `decoder 0`, `head 0`, where 0 is the finest level; the path of a part of
            a foreign network.
        channels: the channels of the output.
        size: the size of the output, voxels along each axis.
        short_skip: the name of the short skip inside; empty in heads and foreign networks.
        long_skip: the name of the long skip of a decoder's stage; empty elsewhere.
        parameters: trainable numbers.
        multiply_adds: the multiply-adds of the convolutions.
        receptive_field: voxels of the image along each axis that one value depends on through
            convolutions; None where it is not known. An instance norm sees the whole patch.
        saved_mib: activations kept for the backward pass in float32, MiB.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    short_skip: str
    long_skip: str
    parameters: int
    multiply_adds: int
    receptive_field: tuple[int, ...] | None
    saved_mib: float


def describe(
    model: AnyModel,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    patch: Sequence[int],
) -> list[Stage]:
    """Describe the network that `build` makes of the same arguments.

    Args:
        model: the options.
        in_channels: image channels.
        out_channels: labels, the background included.
        strides: the stride of each downsampling, along each axis.
        kernels: the kernel of each level, along each axis.
        patch: voxels along each axis.

    Returns:
        The stages that run, in the order of `stage_parts`.

    Raises:
        ConfigError: if a foreign network cannot take such a patch, or does not return one logit per
            label and voxel.
    """
    network = build_meta(model, in_channels, out_channels, strides, kernels)
    image = torch.empty(PAIR, in_channels, *patch, device="meta")
    if isinstance(model, MonaiModel):
        _check_foreign(model, network, image, out_channels)
    parts = stage_parts(network)
    recorder = Recorder(network, parts, len(patch))
    recorder.run(image)
    multiply_adds = _multiply_adds(network, image)
    stages = []
    for name, modules in parts.items():
        if name not in recorder.outputs:
            continue
        output = recorder.outputs[name]
        stage = Stage(
            name=name,
            channels=output.shape[1],
            size=tuple(output.shape[2:]),
            short_skip=_short_skip(model, name),
            long_skip=_long_skip(model, name),
            parameters=sum(map(count_parameters, modules.values())),
            multiply_adds=sum(multiply_adds.get(path, 0) for path in modules) // PAIR,
            receptive_field=recorder.fields.get(name),
            saved_mib=recorder.saved_bytes.get(name, 0) / PAIR / MIB,
        )
        stages.append(stage)
    return stages


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable numbers."""
    return sum(map(Tensor.numel, network.parameters()))


def _multiply_adds(network: nn.Module, image: Tensor) -> dict[str, int]:
    """Return the multiply-adds of each module by its path, for all samples."""
    counter = FlopCounterMode(display=False)
    with counter:
        network(image)
    root = f"{type(network).__name__}."
    found = {}
    for path, operations in counter.get_flop_counts().items():
        found[path.removeprefix(root)] = sum(operations.values()) // 2
    return found


def _check_foreign(model: MonaiModel, network: nn.Module, image: Tensor, out_channels: int) -> None:
    """Check that a foreign network maps this image to one logit per label and voxel.

    Raises:
        ConfigError: if it does not.
    """
    size = times(image.shape[2:])
    remedy = "change model.levels, plan.patch or model.arguments"
    try:
        logits = network(image)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"model.network={model.network} cannot take a patch of {size} "
            f"({first_line(error)}): {remedy}"
        ) from None
    expected = (out_channels, *image.shape[2:])
    actual = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
    if actual != expected:
        raise ConfigError(
            f"model.network={model.network} gives {actual} for a patch of {size}, not {expected}: "
            f"{remedy}"
        )


def _short_skip(model: AnyModel, name: str) -> str:
    part, _, level = name.partition(" ")
    if not isinstance(model, Model) or part == "head":
        return ""
    return short_skip_at(model, part, int(level))


def _long_skip(model: AnyModel, name: str) -> str:
    part, _, level = name.partition(" ")
    if not isinstance(model, Model) or part != "decoder":
        return ""
    return per_level(model.long_skips, len(model.widths) - 1)[int(level)]
