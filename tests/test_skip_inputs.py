"""Long skips looked at and replaced where they enter a network."""

import monai.networks.nets as library
import pytest
import torch
from support.networks import network
from torch import Tensor, nn

from segpipe.errors import ConfigError
from segpipe.nets.skip_inputs import skip_inputs
from segpipe.nets.skips import ConcatSkip
from segpipe.probe.lesion import Means, Shuffled, replaced

FOREIGN = {
    "UNet": (library.UNet(2, 1, 2, (4, 8, 16), (2, 2)), 2),
    "AttentionUnet": (library.AttentionUnet(2, 1, 2, (4, 8, 16), (2, 2)), 2),
    "BasicUNet": (library.BasicUNet(2, 1, 2, (4, 4, 8, 8, 8, 4)), 4),
    "DynUNet": (library.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], [4, 8, 16]), 2),
    "VNet": (library.VNet(2, 1, 2), 4),
    "UNETR": (library.UNETR(1, 2, 64, 8, 24, 48, 4, spatial_dims=2), 4),
}


def image(channels: int = 2, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(
        2, channels, size, size, generator=torch.Generator().manual_seed(seed)
    ).double()


@pytest.mark.parametrize("long", ["add", "concat", "gate"])
def test_each_level_is_replaced_alone_and_given_back(long: str) -> None:
    net, x = network(2, (long, long)).eval(), image()
    whole = net(x)
    skips = skip_inputs(net)
    assert [skip.name for skip in skips] == ["level 0", "level 1"]
    for skip in skips:
        with replaced(skip, lambda came: came):
            assert torch.equal(net(x), whole)
        with replaced(skip, torch.zeros_like):
            assert not torch.equal(net(x), whole)
        assert torch.equal(net(x), whole)


def test_a_level_without_a_skip_has_no_entrance() -> None:
    assert [skip.name for skip in skip_inputs(network(2, ("none", "add")))] == ["level 1"]
    with pytest.raises(ConfigError, match="its network has no long skip"):
        skip_inputs(network(2, ("none", "none")))


def test_a_skip_that_is_not_used_is_not_missed() -> None:
    """The fusing convolution's weights for the skip are 0: not a bit of the output may change."""
    net, x = network(2).eval(), image()
    join, fuse = net.skips[0], net.decoder_stages[0]
    assert isinstance(join, ConcatSkip)
    first = next(part for part in fuse.modules() if isinstance(part, nn.Conv2d))
    with torch.no_grad():
        first.weight[:, join.channels - 3 :] = (
            0  # the encoder's 3 channels lie behind those from below
        )
    whole, skip = net(x), skip_inputs(net)[0]
    means = Means()
    with replaced(skip, means):
        net(x)
    for change in (torch.zeros_like, means.instead, lambda came: came.flip(0)):
        with replaced(skip, change):
            assert torch.equal(net(x), whole)
    assert torch.equal(Shuffled(net, skip)(torch.cat([x, image(seed=1)], 1)), whole)


def test_the_mean_is_over_cases_and_space() -> None:
    means, first, second = Means(), image(seed=1), image(seed=2)
    means(first), means(second)
    both = torch.cat([first, second]).mean([0, 2, 3])
    assert torch.allclose(means.instead(first), both.view(1, 2, 1, 1).expand_as(first))


def test_a_shuffled_skip_is_that_of_the_other_scan() -> None:
    """Where the decoder sees nothing but the finest skip, shuffling gives the other scan's answer."""
    net = network(2).eval()
    with torch.no_grad():
        next(
            part for part in net.decoder_stages[0].modules() if isinstance(part, nn.Conv2d)
        ).weight[:, :-3] = 0
    own, other = image(), image(seed=1)
    shuffled = Shuffled(net, skip_inputs(net)[0])
    assert torch.allclose(shuffled(torch.cat([own, other], 1)), net(other))
    assert not torch.allclose(net(own), net(other))


@pytest.mark.parametrize("name", FOREIGN)
def test_skips_of_monais_networks_are_found(name: str) -> None:
    net, count = FOREIGN[name]
    net, x = net.eval(), image(1, 64).float()
    with torch.no_grad():
        whole, skips = net(x), skip_inputs(net)
        assert len(skips) == count
        for skip in skips:
            with replaced(skip, lambda came: came):
                assert torch.equal(net(x), whole)
            with replaced(skip, torch.zeros_like):
                assert not torch.equal(net(x), whole)


def test_a_network_whose_skips_enter_no_module_is_refused() -> None:
    with pytest.raises(ConfigError, match="no long skip of SegResNet enters a module of its own"):
        skip_inputs(library.SegResNet(2, 8, 1, 2))
