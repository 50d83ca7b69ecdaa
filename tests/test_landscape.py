"""Directions that know what a filter is, and a surface that algebra knows."""

import numpy as np
import pytest
import torch
from support.networks import network
from torch import Tensor, nn

from segpipe.probe.landscape import directions, filter_norms, moving, surface

LAYERS = [
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
    layer: nn.Module, filter_
) -> None:
    ((drawn,),) = directions(layer, 1, seed=0)
    weight = layer.get_parameter("weight").detach()
    for number in range(6):
        assert float(filter_(drawn, number).norm()) == pytest.approx(
            float(filter_(weight, number).norm()), rel=1e-5
        )
    assert filter_norms(layer, weight).broadcast_to(weight.shape).shape == weight.shape


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(1, 1, 2), nn.ConvTranspose2d(4, 6, 2)])
def test_a_transposed_filter_makes_one_channel(layer: nn.ConvTranspose2d) -> None:
    """Doubling a filter doubles one channel of the output and no other."""
    x = torch.randn(1, layer.in_channels, 3, 3)
    before = layer(x) - layer.bias.view(1, -1, 1, 1)  # type: ignore[union-attr]
    with torch.no_grad():
        layer.weight[:, 0] *= 2
    after = layer(x) - layer.bias.view(1, -1, 1, 1)  # type: ignore[union-attr]
    assert torch.allclose(after[:, 0], 2 * before[:, 0], atol=1e-6)
    assert torch.equal(after[:, 1:], before[:, 1:])


def test_the_landscape_of_a_linear_model_is_its_paraboloid() -> None:
    """`|X (w + a d + b e) - y|^2 / n`, expanded in a and b."""
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, size, generator=rng).double() for size in (7, 1))
    model = nn.Linear(7, 1).double()

    def loss() -> float:
        return float((model(x) - y).square().mean())

    ways = directions(model, 2, seed=1)
    places = np.linspace(-2, 2, 9)
    found = surface(model, loss, ways, places)
    rest = (model(x) - y).detach()
    u, v = (x @ way[0].T for way in ways)
    a, b = np.meshgrid(places, places, indexing="ij")
    dot = [
        float((one * other).mean())
        for one, other in ((rest, rest), (rest, u), (rest, v), (u, u), (v, v), (u, v))
    ]
    expected = (
        dot[0]
        + 2 * a * dot[1]
        + 2 * b * dot[2]
        + a**2 * dot[3]
        + b**2 * dot[4]
        + 2 * a * b * dot[5]
    )
    assert found == pytest.approx(expected, rel=1e-12)
    assert surface(model, loss, ways[:1], places) == pytest.approx(expected[:, 4], rel=1e-12)


def test_a_walk_leaves_the_network_as_it_was_even_when_it_breaks() -> None:
    net = network(2).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ways = directions(net, 1, seed=0)
    assert len(ways[0]) == len(moving(net))

    def breaks() -> float:
        raise ZeroDivisionError

    surface(net, lambda: 0.0, ways, [-1.0, 0.0, 1.0])
    with pytest.raises(ZeroDivisionError):
        surface(net, breaks, ways, [1.0])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_biases_and_norms_stand_still() -> None:
    net, seen = network(2).eval(), []
    others = [
        weight
        for part in net.modules()
        if part not in moving(net)
        for weight in part.parameters(recurse=False)
    ]
    others += [part.bias for part in moving(net) if isinstance(part.bias, Tensor)]  # type: ignore[union-attr]
    surface(
        net,
        lambda: seen.append([one.detach().clone() for one in others]) or 0.0,
        directions(net, 1, 0),
        [-1.0, 1.0],
    )
    assert others
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))
