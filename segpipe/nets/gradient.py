"""How strongly each layer of a network is pulled, relative to its weights, from the input side to the output side."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.build import PAIR
from segpipe.nets.describe import stage_parts

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Layer:
    """A convolution of a network.

    Attributes:
        name: its path in the network.
        stage: `encoder 0`, `decoder 0`, `head 0`; of a foreign network, the name of its part.
        weight: of the network itself.
        voxels: in what it hands on.
    """

    name: str
    stage: str
    weight: Tensor
    voxels: int


def layers_in_order(network: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """The convolutions of a network in the order in which they first run in training.

    Args:
        network: it is not run itself, but a copy without numbers.
        shape: of what it sees: `(c, *space)`.
    """
    voxels: dict[str, int] = {}

    def note(name: str, output: Any) -> None:
        voxels.setdefault(name, output[0, 0].numel())

    build_meta = copy.deepcopy(network).to("meta", torch.float32).train()
    for name, part in build_meta.named_modules():
        if isinstance(part, CONVOLUTIONS):
            part.register_forward_hook(lambda _part, _given, output, at=name: note(at, output))
    build_meta(torch.empty(PAIR, *shape, device="meta"))
    stages = {path: stage for stage, inside in stage_parts(network).items() for path in inside}
    return [
        Layer(name, _stage(name, stages), network.get_submodule(name).get_parameter("weight"), size)
        for name, size in voxels.items()
    ]


def _stage(name: str, stages: dict[str, str]) -> str:
    parts = name.split(".")
    ways = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((stages[way] for way in ways if way in stages), parts[0])


def bottleneck(layers: Sequence[Layer]) -> float:
    """The place, from 0, of the middle of the layers that hand on the fewest voxels."""
    sizes = np.array([layer.voxels for layer in layers])
    return float(np.flatnonzero(sizes == sizes.min()).mean())


def gradients(layers: Sequence[Layer]) -> list[Tensor]:
    """The gradient of each layer's weight; 0 where it has none."""
    found = [(layer.weight, layer.weight.grad) for layer in layers]
    return [
        torch.zeros_like(weight) if gradient is None else gradient for weight, gradient in found
    ]


@torch.no_grad()
def relative_norms(
    changes: Sequence[Tensor], weights: Sequence[Tensor]
) -> Float[Tensor, " layers"]:
    """`|change| / |weight|` of each layer, with the Euclidean norm over all of a weight."""
    # one call for all layers: a call for each would take longer than the norms
    above, below = (torch.stack(torch._foreach_norm(list(of))) for of in (changes, weights))  # type: ignore[attr-defined]
    return above / below
