"""What a network is made of, stage by stage: found by running it without data, on the `meta` device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from segpipe.config.model import AnyModel, Model, MonaiModel, per_level
from segpipe.errors import ConfigError
from segpipe.nets.build import PAIR, build_meta
from segpipe.nets.unet import UNet

MIB = 2**20
ROW = 2**14  # voxels of the row along which a receptive field is followed


@dataclass(frozen=True)
class Stage:
    """One stage of a network, for one patch.

    Attributes:
        name: `encoder 0`, `decoder 0`, `head 0`, 0 being the finest level; of a foreign network, its parts' names.
        channels: that it hands on.
        size: of what it hands on, voxels along each axis.
        short_skip: inside it: none, residual or dense.
        long_skip: how a decoder's stage takes what the encoder made: none, add, concat or gate; empty elsewhere.
        parameters: trainable.
        multiply_adds: of its convolutions.
        receptive_field: voxels of the image that one of its values sees, along each axis; None where it is not known.
            Norms see more: an instance norm the whole patch.
        saved_mib: activations kept for the backward pass, in float32.
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
    """The stages of the network that `build` makes of the same arguments, for a patch of this many voxels.

    Raises:
        ConfigError: if a foreign network cannot take such a patch, or does not give a logit per label and voxel.
    """
    network = build_meta(model, in_channels, out_channels, strides, kernels)
    image = torch.empty(PAIR, in_channels, *patch, device="meta")
    if isinstance(model, MonaiModel):
        _check_foreign(model, network, image, out_channels)
    parts = stage_parts(network)
    outputs, saved, fields = _watch(network, parts, image)
    counter = FlopCounterMode(display=False)
    with counter:
        network(image)
    flops = {name: sum(of_kind.values()) for name, of_kind in counter.get_flop_counts().items()}
    root = type(network).__name__
    return [
        Stage(
            name,
            outputs[name].shape[1],
            tuple(outputs[name].shape[2:]),
            *_skips(model, name),
            sum(weight.numel() for part in inside.values() for weight in part.parameters()),
            sum(flops.get(f"{root}.{path}", 0) for path in inside) // 2 // PAIR,
            fields.get(name),
            saved.get(name, 0) / PAIR / MIB,
        )
        for name, inside in parts.items()
        if name in outputs
    ]


def _check_foreign(model: MonaiModel, network: nn.Module, image: Tensor, out_channels: int) -> None:
    size = "x".join(map(str, image.shape[2:]))
    mend = "change model.levels, plan.patch or model.arguments"
    try:
        logits = network(image)
    except (RuntimeError, ValueError) as error:
        line = str(error).split("\n")[0]
        raise ConfigError(
            f"model.network={model.network} cannot take a patch of {size} ({line}): {mend}"
        ) from None
    found = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (wanted := (out_channels, *image.shape[2:])):
        raise ConfigError(
            f"model.network={model.network} gives {found} for a patch of {size}, not {wanted}: {mend}"
        )


def stage_parts(network: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """The modules of each stage by their path, in the order in which they run."""
    if not isinstance(network, UNet):
        return {path: {path: part} for path, part in _foreign(network, "")}
    levels, heads = len(network.downs), len(network.heads)
    parts: dict[str, dict[str, nn.Module]] = {"encoder 0": {"stem": network.stem}}
    parts |= {f"encoder {i + 1}": {f"downs.{i}": network.downs[i]} for i in range(levels)}
    for i in reversed(range(levels)):
        parts[f"decoder {i}"] = {
            f"{kind}.{i}": getattr(network, kind)[i] for kind in ("ups", "skips", "decoder_stages")
        }
    return parts | {f"head {i}": {f"heads.{i}": network.heads[i]} for i in range(heads)}


def _foreign(network: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The children of a network that is not ours; a list of modules, which is never run itself, is looked into."""
    for name, part in network.named_children():
        if isinstance(part, nn.ModuleList):
            yield from _foreign(part, f"{prefix}{name}.")
        else:
            yield prefix + name, part


def _watch(
    network: nn.Module, parts: dict[str, dict[str, nn.Module]], image: Tensor
) -> tuple[dict[str, Tensor], dict[str, int], dict[str, tuple[int, ...] | None]]:
    """Per stage its output, the bytes that it keeps for the backward pass, and its receptive field."""
    outputs: dict[str, Tensor] = {}
    saved: dict[str, int] = {}
    fields: dict[str, tuple[int, ...] | None] = {}
    running, seen = [""], {id(weight.untyped_storage()) for weight in network.parameters()}
    reach = ReceptiveField(image.ndim - 2)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen and not isinstance(tensor, nn.Parameter):
            seen.add(storage._cdata)
            saved[running[0]] = saved.get(running[0], 0) + storage.nbytes()
        return tensor

    def enter(name: str) -> None:
        running[0] = name

    def leave(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[name] = output
        if isinstance(network, UNet) and not name.startswith("head"):
            fields[name] = reach.field

    handles = []
    for name, inside in parts.items():
        for part in inside.values():
            handles.append(part.register_forward_pre_hook(lambda *_, at=name: enter(at)))
            handles.append(
                part.register_forward_hook(lambda _m, _i, output, at=name: leave(at, output))
            )
    handles += [
        layer.register_forward_hook(lambda layer, _i, _o: reach.passes(layer))
        for path, layer in network.named_modules()
        if not {"shortcut", "skips", "heads"}
        & set(path.split("."))  # what runs beside the longest way
    ]
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(image)
    for handle in handles:
        handle.remove()
    return outputs, saved, fields


class ReceptiveField:
    """The receptive field along the longest way through a network (Araujo 2019), exactly, layer by layer.

    Per axis it follows a long row of voxels: of each position the first and the last voxel of the image that it sees,
    and infinity where that would be beyond the row.

    Args:
        dims: axes.
    """

    def __init__(self, dims: int) -> None:
        self.rows = [
            (np.arange(ROW, dtype=float), np.arange(ROW, dtype=float)) for _ in range(dims)
        ]

    @property
    def field(self) -> tuple[int, ...] | None:
        """Voxels along each axis, of the position that sees most; None where all see beyond the row."""
        widths = [last - first + 1 for first, last in self.rows]
        if not all(np.isfinite(width).any() for width in widths):
            return None
        return tuple(int(width[np.isfinite(width)].max()) for width in widths)

    def passes(self, layer: nn.Module) -> None:
        """Goes through a layer that was just run."""
        for axis, (first, last) in enumerate(self.rows):
            match layer:
                case nn.Conv2d() | nn.Conv3d():
                    kernel, stride = layer.kernel_size[axis], layer.stride[axis]
                    low = np.arange(0, len(first), stride) - kernel // 2
                    high = low + kernel - 1
                case nn.MaxPool2d() | nn.MaxPool3d() if not isinstance(layer.kernel_size, int):
                    low = np.arange(0, len(first), layer.kernel_size[axis])
                    high = low + layer.kernel_size[axis] - 1
                case nn.ConvTranspose2d() | nn.ConvTranspose3d():
                    kernel, stride, rim = (
                        int(one[axis]) for one in (layer.kernel_size, layer.stride, layer.padding)
                    )
                    places = np.arange(len(first) * stride) + rim
                    low, high = -((kernel - 1 - places) // stride), places // stride
                case nn.Upsample() if isinstance(layer.scale_factor, tuple):
                    scale = int(layer.scale_factor[axis])
                    at = (np.arange(len(first) * scale) + 0.5) / scale - 0.5
                    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
                    if layer.mode == "nearest":
                        low = high = np.arange(len(first) * scale) // scale
                case _:
                    continue
            self.rows[axis] = _at(first, low, -np.inf), _at(last, high, np.inf)


def _at(row: np.ndarray, places: np.ndarray, beyond: float) -> np.ndarray:
    inside = (places >= 0) & (places < len(row))
    return np.where(inside, row[places.clip(0, len(row) - 1)], beyond)


def _skips(model: AnyModel, name: str) -> tuple[str, str]:
    part, _, level = name.partition(" ")
    if not isinstance(model, Model) or part == "head":
        return "", ""
    short = per_level(model.short_skips, len(model.channels))[int(level)]
    inside = short if model.short_skips_in in (part, "both") else "none"
    return inside, per_level(model.long_skips, len(model.channels) - 1)[
        int(level)
    ] if part == "decoder" else ""
