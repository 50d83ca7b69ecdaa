"""Random directions in the space of a network's weights, and the loss along them (Li 2018).

Weights in front of a norm can be doubled without any effect, so distances are measured relative to
them: in every filter a direction has the length of that filter. A filter makes one output channel;
it lies on the first axis of a convolution's weight and on the second of a transposed one's. Biases,
norms, running statistics and all other layers stay as they are.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.gradient import CONVOLUTIONS

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*CONVOLUTIONS, nn.Conv1d, nn.Linear)
EPSILON = 1e-10  # of a filter's length
Loss = Callable[[], float]


def random_directions(network: nn.Module, count: int, seed: int) -> list[list[Tensor]]:
    """Draw random directions in which every filter is as long as the network's own.

    Returns:
        For each direction a tensor for the weight of each of `moved_layers`.
    """
    rng = torch.Generator().manual_seed(seed)
    directions = []
    for _ in range(count):
        directions.append([_random_direction(layer, rng) for layer in moved_layers(network)])
    return directions


def _random_direction(layer: nn.Module, rng: torch.Generator) -> Tensor:
    weight = layer.get_parameter("weight").detach()
    drawn = torch.randn(weight.shape, generator=rng, dtype=weight.dtype).to(weight.device)
    return drawn * (filter_norms(layer, weight) / (filter_norms(layer, drawn) + EPSILON))


def moved_layers(network: nn.Module) -> list[nn.Module]:
    """Return the convolutions and linear layers of a network, whose weights are moved."""
    return [module for module in network.modules() if isinstance(module, LAYERS)]


def filter_norms(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return the Euclidean norm of each filter, in a shape that multiplies the weight."""
    if not isinstance(layer, TRANSPOSED):
        return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
    # A transposed weight is (in, out / groups, *kernel): a group's inputs make its outputs.
    grouped = weight.unflatten(0, (layer.groups, -1))
    norms = grouped.transpose(1, 2).flatten(2).norm(dim=2)[:, None]
    norms = norms.expand(grouped.shape[:3]).flatten(0, 1)
    return norms.view(*weight.shape[:2], *[1] * (weight.ndim - 2))


@torch.no_grad()
def loss_surface(
    network: nn.Module,
    loss: Loss,
    directions: Sequence[Sequence[Tensor]],
    steps: Sequence[float] | np.ndarray,
    progress: Callable[[], object] = lambda: None,
) -> Float[np.ndarray, "*steps"]:
    """Compute the loss at every step along one direction, or at every pair of steps along two.

    Args:
        network: the network whose weights are moved; they are restored at the end.
        loss: a function that computes the loss with the present weights.
        directions: the directions as `random_directions` gives them.
        steps: distances along each direction.
        progress: a function that is called after each loss.
    """
    values = []
    with _restored_weights(network) as (weights, trained):
        for distances in itertools.product(steps, repeat=len(directions)):
            for index, weight in enumerate(weights):
                moves = []
                for distance, direction in zip(distances, directions, strict=True):
                    moves.append(float(distance) * direction[index])
                weight.copy_(trained[index] + torch.stack(moves).sum(0))
            values.append(loss())
            progress()
    return np.array(values).reshape([len(steps)] * len(directions))


@contextmanager
def _restored_weights(network: nn.Module) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """Give the weights that are moved, and copies of them, which are restored at the end."""
    weights = [layer.get_parameter("weight") for layer in moved_layers(network)]
    trained = [weight.clone() for weight in weights]
    try:
        yield weights, trained
    finally:
        for weight, original in zip(weights, trained, strict=True):
            weight.copy_(original)
