"""Directions with filters as long as the network's, and a surface that algebra predicts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.networks import network
from torch import Tensor, nn

from segpipe.probe.surface import filter_norms, loss_surface, moved_layers, random_directions

LAYERS: list[tuple[nn.Module, Callable[[Tensor, int], Tensor]]] = [
    (nn.Conv2d(4, 6, 3), lambda weight, n: weight[n]),
    (nn.Conv3d(4, 6, 3, groups=2), lambda weight, n: weight[n]),
    (nn.ConvTranspose2d(4, 6, 2), lambda weight, n: weight[:, n]),
    (
        nn.ConvTranspose3d(4, 6, 2, groups=2),
        lambda weight, n: weight[2 * (n // 3) : 2 * (n // 3) + 2, n % 3],
    ),
    (nn.Linear(4, 6), lambda weight, n: weight[n]),
]


@pytest.mark.parametrize(("layer", "filter_"), LAYERS)
def test_every_filter_of_a_direction_is_as_long_as_the_layers_own(
    layer: nn.Module, filter_: Callable[[Tensor, int], Tensor]
) -> None:
    ((direction,),) = random_directions(layer, 1, seed=0)
    weight = layer.get_parameter("weight").detach()
    for number in range(6):
        length = float(filter_(direction, number).norm())
        assert length == pytest.approx(float(filter_(weight, number).norm()), rel=1e-5)
    assert filter_norms(layer, weight).broadcast_to(weight.shape).shape == weight.shape


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(1, 1, 2), nn.ConvTranspose2d(4, 6, 2)])
def test_a_transposed_filter_makes_one_channel(layer: nn.ConvTranspose2d) -> None:
    """Doubling a filter doubles one channel of the output and no other."""
    x = torch.randn(1, layer.in_channels, 3, 3)

    def without_bias() -> Tensor:
        return layer(x) - layer.bias.view(1, -1, 1, 1)  # type: ignore[union-attr]

    before = without_bias()
    with torch.no_grad():
        layer.weight[:, 0] *= 2
    after = without_bias()
    assert torch.allclose(after[:, 0], 2 * before[:, 0], atol=1e-6)
    assert torch.equal(after[:, 1:], before[:, 1:])


def test_the_landscape_of_a_linear_model_is_its_paraboloid() -> None:
    """`|X (w + a d + b e) - y|^2 / n`, expanded in a and b."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(50, 7, generator=rng).double()
    y = torch.randn(50, 1, generator=rng).double()
    model = nn.Linear(7, 1).double()

    def loss() -> float:
        return float((model(x) - y).square().mean())

    def mean_product(first: Tensor, second: Tensor) -> float:
        return float((first * second).mean())

    directions = random_directions(model, 2, seed=1)
    steps = np.linspace(-2, 2, 9)
    surface = loss_surface(model, loss, directions, steps)
    rest = (model(x) - y).detach()
    u = x @ directions[0][0].T
    v = x @ directions[1][0].T
    a, b = np.meshgrid(steps, steps, indexing="ij")
    expected = mean_product(rest, rest)
    expected += 2 * a * mean_product(rest, u) + 2 * b * mean_product(rest, v)
    expected += a**2 * mean_product(u, u) + b**2 * mean_product(v, v)
    expected += 2 * a * b * mean_product(u, v)
    assert surface == pytest.approx(expected, rel=1e-12)
    line = loss_surface(model, loss, directions[:1], steps)
    assert line == pytest.approx(expected[:, 4], rel=1e-12)


def test_the_network_is_restored_even_when_the_loss_raises() -> None:
    net = network(2).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    directions = random_directions(net, 1, seed=0)
    assert len(directions[0]) == len(moved_layers(net))

    def raises() -> float:
        raise ZeroDivisionError

    loss_surface(net, lambda: 0.0, directions, [-1.0, 0.0, 1.0])
    with pytest.raises(ZeroDivisionError):
        loss_surface(net, raises, directions, [1.0])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_biases_and_norms_are_not_moved() -> None:
    net = network(2).eval()
    moved = {id(layer.weight) for layer in moved_layers(net)}
    others = [weight for weight in net.parameters() if id(weight) not in moved]
    copies: list[list[Tensor]] = []

    def loss() -> float:
        copies.append([weight.detach().clone() for weight in others])
        return 0.0

    loss_surface(net, loss, random_directions(net, 1, 0), [-1.0, 1.0])
    assert others
    for first, second in zip(*copies, strict=True):
        assert torch.equal(first, second)
