"""The gradient of each layer relative to its weights, from the input side to the output side."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.build import PAIR
from segpipe.nets.stages import stage_parts

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Layer:
    """A convolution of a network.

    Attributes:
        name: its path in the network.
        stage: `encoder 0`, `decoder 0`, `head 0`; in a foreign network, the path of its part.
        weight: the network's own tensor.
        voxels: number of voxels in one channel of its output.
    """

    name: str
    stage: str
    weight: Tensor
    voxels: int


def layers_in_order(network: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """Return the convolutions of a network in the order in which they first run in training.

    Args:
        network: a copy of it is run on the `meta` device, without values.
        shape: the shape of its input, `(C, *spatial)`.
    """
    stages: dict[str, str] = {}
    for stage, modules in stage_parts(network).items():
        stages |= dict.fromkeys(modules, stage)
    layers = []
    for name, voxels in _run_order(network, shape).items():
        weight = network.get_submodule(name).get_parameter("weight")
        layers.append(Layer(name, _stage_of(name, stages), weight, voxels))
    return layers


def _run_order(network: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Return the voxels of each convolution's output by its path, in the order of running."""
    voxels: dict[str, int] = {}
    names: dict[nn.Module, str] = {}

    def record(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        voxels.setdefault(names[layer], output[0, 0].numel())

    trial = copy.deepcopy(network).to("meta", torch.float32).train()
    for name, module in trial.named_modules():
        if isinstance(module, CONVOLUTIONS):
            names[module] = name
            module.register_forward_hook(record)
    trial(torch.empty(PAIR, *shape, device="meta"))
    return voxels


def _stage_of(name: str, stages: dict[str, str]) -> str:
    """Return the stage of the innermost module around a layer that belongs to one."""
    path = name
    while path:
        if path in stages:
            return stages[path]
        path = path.rpartition(".")[0]
    return name.partition(".")[0]


def bottleneck(layers: Sequence[Layer]) -> float:
    """Return the middle index, from 0, of the layers whose outputs have the fewest voxels."""
    sizes = np.array([layer.voxels for layer in layers])
    return float(np.flatnonzero(sizes == sizes.min()).mean())


def gradients(layers: Sequence[Layer]) -> list[Tensor]:
    """Return the gradient of each layer's weight, 0 where it has none."""
    found = []
    for layer in layers:
        gradient = layer.weight.grad
        found.append(torch.zeros_like(layer.weight) if gradient is None else gradient)
    return found


@torch.no_grad()
def relative_norms(
    changes: Sequence[Tensor], weights: Sequence[Tensor]
) -> Float[Tensor, " layers"]:
    """Return `|change| / |weight|` of each layer, the Euclidean norms over all of a weight."""
    return _norms(changes) / _norms(weights)


def _norms(tensors: Sequence[Tensor]) -> Float[Tensor, " layers"]:
    # one call for all tensors: a call for each would take longer than the norms themselves
    return torch.stack(torch._foreach_norm(list(tensors)))  # type: ignore[attr-defined]
