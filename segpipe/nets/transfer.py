"""Weights of one network in another that has other image channels or other outputs.

Which axes of a weight go with the channels, and which with the outputs, is not told by names of
layers: the network is built with one more of each, and what grows is seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from segpipe.config.model import AnyModel
from segpipe.nets.build import build_meta

End = Literal["channels", "outputs"]
Sources = Sequence[int | None]  # per new entry the old one that it goes on from
Shape = tuple[int, int, Sequence[Sequence[int]], Sequence[Sequence[int]]]
State = Literal["loaded", "adapted", "new", "left"]


@dataclass(frozen=True)
class Ends:
    """How the two ends of a network go on from those of another.

    Attributes:
        channels: for each image channel the old one; None = the mean of all.
        outputs: for each output the old one; None = as it was initialised.
        old_channels: number of the old image channels.
        old_outputs: number of the old outputs.
    """

    channels: Sources
    outputs: Sources
    old_channels: int
    old_outputs: int

    def have_new(self, end: End) -> bool:
        """Return whether an entry of an end has no old one."""
        return None in self.sources(end)

    def are_same(self, end: End) -> bool:
        """Return whether the entries of an end are the old ones in their order."""
        return list(self.sources(end)) == list(range(self.old_size(end)))

    def sources(self, end: End) -> Sources:
        """Return per entry of an end the old one."""
        return self.channels if end == "channels" else self.outputs

    def old_size(self, end: End) -> int:
        """Return how many entries the end had."""
        return self.old_channels if end == "channels" else self.old_outputs


def find_ends(model: AnyModel, shape: Shape) -> dict[str, dict[int, End]]:
    """Return for each weight the axes with an entry per image channel or per output.

    Args:
        model: the network's options.
        shape: its image channels, outputs, strides and kernels.

    Raises:
        ConfigError: if it cannot be built.
    """
    channels, outputs, strides, kernels = shape
    ends: dict[str, dict[int, End]] = {}
    usual = _sizes(build_meta(model, channels, outputs, strides, kernels))
    wide = _sizes(build_meta(model, channels + 1, outputs, strides, kernels))
    rich = _sizes(build_meta(model, channels, outputs + 1, strides, kernels))
    for name, size in usual.items():
        ends[name] = {}
        for axis in range(len(size)):
            if wide.get(name, size)[axis] != size[axis]:
                ends[name][axis] = "channels"
            elif rich.get(name, size)[axis] != size[axis]:
                ends[name][axis] = "outputs"
    return ends


def _sizes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


@torch.no_grad()
def transfer(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    ends: Mapping[str, Mapping[int, End]],
    match: Ends,
) -> dict[str, State]:
    """Put weights into a network, as far as they fit, and return what became of each.

    Args:
        network: a network that has been initialised.
        weights: the weights of another network.
        ends: the ends as `find_ends` gives them.
        match: the old channels and outputs with which the new ones go on.

    Returns:
        By name: `loaded` as it was, `adapted` to other channels or outputs, `new`, or `left`
            where the network has no such weight.
    """
    states: dict[str, State] = {}
    own = network.state_dict()
    for name, weight in own.items():
        states[name] = "new"
        if name not in weights:
            continue
        moved = _moved(weights[name], weight, ends.get(name, {}), match)
        if moved is None:
            continue
        weight.copy_(moved)
        adapted = any(match.have_new(end) for end in ends.get(name, {}).values())
        states[name] = "adapted" if adapted else "loaded"
    for name in weights.keys() - own.keys():
        states[name] = "left"
    return states


def _moved(old: Tensor, new: Tensor, axes: Mapping[int, End], match: Ends) -> Tensor | None:
    """Return a weight for another network; None where nothing of it can be used."""
    if old.ndim != new.ndim:
        return None
    moved = old
    for axis, end in sorted(axes.items(), key=lambda entry: entry[1]):  # channels first
        if match.are_same(end):
            continue
        sources = match.sources(end)
        if (old.shape[axis], new.shape[axis]) != (match.old_size(end), len(sources)):
            return None  # the axis holds other entries, too
        if end == "channels":
            moved = _mix_channels(moved, axis, sources)
        elif set(sources) == {None} or list(axes.values()).count("outputs") > 1:
            return None
        else:
            moved = _pick_outputs(moved, new, axis, sources)
    return moved if moved.shape == new.shape else None


def _mix_channels(weight: Tensor, axis: int, sources: Sources) -> Tensor:
    """Return a weight with the entries of other channels along an axis.

    The filters of a channel without a source are the mean of all, scaled so that as many channels
    of one image give what that image gave before.
    """
    scale = weight.shape[axis] / len(sources) if weight.ndim > 1 else 1.0
    mean = scale * weight.mean(axis)
    parts = []
    for source in sources:
        parts.append(mean if source is None else weight.select(axis, source))
    return torch.stack(parts, axis)


def _pick_outputs(weight: Tensor, new: Tensor, axis: int, sources: Sources) -> Tensor:
    """Return a weight with the entries of other outputs along an axis, new ones initialised."""
    parts = []
    for index, source in enumerate(sources):
        known = source is not None
        parts.append(weight.select(axis, source) if known else new.select(axis, index))
    return torch.stack(parts, axis)
