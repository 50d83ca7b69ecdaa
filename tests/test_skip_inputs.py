"""Long skips looked at and replaced where they enter a network."""

import monai.networks.nets as library
import pytest
import torch
from support.networks import network
from torch import Tensor, nn

from segpipe.errors import ConfigError
from segpipe.nets.skip_inputs import skip_inputs
from segpipe.nets.skips import ConcatSkip
from segpipe.probe.replacements import Shuffled, SkipMeans, replaced
from segpipe.registry import LONG_SKIPS

WITH_SKIP = [name for name in LONG_SKIPS if name != "none"]
FOREIGN = {
    "UNet": (library.UNet(2, 1, 2, (4, 8, 16), (2, 2)), 2),
    "AttentionUnet": (library.AttentionUnet(2, 1, 2, (4, 8, 16), (2, 2)), 2),
    "BasicUNet": (library.BasicUNet(2, 1, 2, (4, 4, 8, 8, 8, 4)), 4),
    "DynUNet": (library.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], [4, 8, 16]), 2),
    "VNet": (library.VNet(2, 1, 2), 4),
    "UNETR": (library.UNETR(1, 2, 64, 8, 24, 48, 4, spatial_dims=2), 4),
}


def image(channels: int = 2, size: int = 8, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, size, size, generator=rng).double()


def first_decoder_conv(net: nn.Module) -> nn.Conv2d:
    return next(
        module for module in net.decoder_stages[0].modules() if isinstance(module, nn.Conv2d)
    )


def unchanged(skip: Tensor) -> Tensor:
    return skip


@pytest.mark.parametrize("long", WITH_SKIP)
def test_each_level_is_replaced_alone_and_given_back(long: str) -> None:
    net = network(2, (long, long)).eval()
    x = image()
    intact = net(x)
    skips = skip_inputs(net)
    assert [skip.name for skip in skips] == ["level 0", "level 1"]
    for skip in skips:
        with replaced(skip, unchanged):
            assert torch.equal(net(x), intact)
        with replaced(skip, torch.zeros_like):
            assert not torch.equal(net(x), intact)
        assert torch.equal(net(x), intact)


def test_a_level_without_a_skip_has_no_input() -> None:
    assert [skip.name for skip in skip_inputs(network(2, ("none", "add")))] == ["level 1"]
    with pytest.raises(ConfigError, match="its network has no long skip"):
        skip_inputs(network(2, ("none", "none")))


def test_a_skip_that_is_not_used_is_not_missed() -> None:
    """The decoder's weights for the skip are 0: not a bit of the output may change."""
    net = network(2).eval()
    x = image()
    join = net.skips[0]
    assert isinstance(join, ConcatSkip)
    with torch.no_grad():
        # the encoder's 3 channels are behind those from below
        first_decoder_conv(net).weight[:, join.channels - 3 :] = 0
    intact = net(x)
    skip = skip_inputs(net)[0]
    means = SkipMeans()
    with replaced(skip, means.record):
        net(x)
    for change in (torch.zeros_like, means.like, lambda value: value.flip(0)):
        with replaced(skip, change):
            assert torch.equal(net(x), intact)
    assert torch.equal(Shuffled(net, skip)(torch.cat([x, image(seed=1)], 1)), intact)


def test_the_mean_is_over_cases_and_space() -> None:
    means = SkipMeans()
    first = image(seed=1)
    second = image(seed=2)
    means.record(first)
    means.record(second)
    expected = torch.cat([first, second]).mean([0, 2, 3])
    assert torch.allclose(means.like(first), expected.view(1, 2, 1, 1).expand_as(first))


def test_a_shuffled_skip_is_that_of_the_other_scan() -> None:
    """Where the decoder sees only the finest skip, shuffling gives the other scan's logits."""
    net = network(2).eval()
    with torch.no_grad():
        first_decoder_conv(net).weight[:, :-3] = 0
    scan = image()
    other = image(seed=1)
    shuffled = Shuffled(net, skip_inputs(net)[0])
    assert torch.allclose(shuffled(torch.cat([scan, other], 1)), net(other))
    assert not torch.allclose(net(scan), net(other))


@pytest.mark.parametrize("name", FOREIGN)
def test_skips_of_monais_networks_are_found(name: str) -> None:
    net, count = FOREIGN[name]
    net = net.eval()
    x = image(1, 64).float()
    with torch.no_grad():
        intact = net(x)
        skips = skip_inputs(net)
        assert len(skips) == count
        for skip in skips:
            with replaced(skip, unchanged):
                assert torch.equal(net(x), intact)
            with replaced(skip, torch.zeros_like):
                assert not torch.equal(net(x), intact)


def test_a_network_whose_skips_enter_no_module_is_refused() -> None:
    with pytest.raises(ConfigError, match="no long skip of SegResNet enters a module of its own"):
        skip_inputs(library.SegResNet(2, 8, 1, 2))
