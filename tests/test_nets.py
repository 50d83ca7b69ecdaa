"""One network in 2D and 3D, and switches that really cut."""

import itertools

import pytest
import torch
from test_config import composed

from segpipe.nets import build
from segpipe.nets.unet import UNet

CHANNELS = [3, 4, 5]
SKIPS = list(itertools.product(["none", "add", "concat"], repeat=2))


def network(dims: int, skips: tuple[str, ...], seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(dims, 2, 3, CHANNELS, [[2] * dims] * 2, [[3] * dims] * 3, skips).double()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("skips", SKIPS)
def test_logits_have_the_images_space_and_every_weight_learns(dims: int, skips: tuple[str, ...]) -> None:
    net = network(dims, skips)
    size = (8, 12, 16)[:dims]
    logits = net(torch.randn(2, 2, *size, dtype=torch.float64))
    assert logits.shape == (2, 3, *size)
    logits.square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


@pytest.mark.parametrize("skips", SKIPS)
def test_a_2d_network_is_its_3d_twin_on_a_volume_that_repeats(skips: tuple[str, ...]) -> None:
    flat, deep = network(2, skips), network(3, skips)
    for thin, thick in zip(flat.parameters(), deep.parameters(), strict=True):
        with torch.no_grad():
            if thin.ndim != 4:
                thick.copy_(thin)
            elif thick.shape[-1] == 3:  # a convolution: the middle plane sees what the 2D one sees
                thick.zero_()[..., 1] = thin
            else:
                thick.copy_(thin[..., None].expand_as(thick))
    image = torch.randn(1, 2, 8, 12, dtype=torch.float64)
    volume = image[..., None].expand(-1, -1, -1, -1, 8)
    torch.testing.assert_close(deep(volume), flat(image)[..., None].expand(-1, -1, -1, -1, 8), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("level", "skip"), [(level, skip) for level in (0, 1) for skip in ("none", "add", "concat")])
def test_each_switch_really_cuts(dims: int, level: int, skip: str) -> None:
    """The gradient of the output with respect to what a long skip carries is zero when it is off, and not when it is on."""
    skips = ["concat", "concat"]
    skips[level] = skip
    net = network(dims, tuple(skips))
    carried: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        carried.append(inputs[1].detach().requires_grad_())
        return inputs[0], carried[0]

    net.joins[level].register_forward_pre_hook(keep)
    net(torch.randn(1, 2, *[8] * dims, dtype=torch.float64)).square().sum().backward()
    gradient = carried[0].grad
    assert (gradient is not None and bool(gradient.abs().max() > 0)) == (skip != "none")


def parameters(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_concatenation_adds_just_the_weights_that_see_it(dims: int) -> None:
    sizes = {skip: parameters(network(dims, (skip, skip))) for skip in ("none", "add", "concat")}
    assert sizes["none"] == sizes["add"]
    assert sizes["concat"] - sizes["none"] == 3**dims * (3**2 + 4**2)


def test_none_and_add_share_their_weights_but_not_their_output() -> None:
    """Why a checkpoint holds its config: weights alone would load into the other network without an error."""
    one, other = network(2, ("none", "none")), network(2, ("add", "add"), seed=1)
    other.load_state_dict(one.state_dict())
    image = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    assert not torch.allclose(one(image), other(image))


def test_gradients_are_those_of_finite_differences() -> None:
    net = network(2, ("concat", "add"))
    image = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: net(x)[:, :, ::3, ::3], image, atol=1e-6)


def test_strides_and_kernels_may_differ_along_the_axes() -> None:
    net = UNet(3, 1, 2, [2, 3, 4], [[2, 2, 1], [2, 1, 2]], [[3, 3, 1], [3, 3, 3], [1, 3, 3]], ["add", "concat"])
    assert net(torch.randn(1, 1, 8, 10, 6)).shape == (1, 2, 8, 10, 6)


def test_a_config_becomes_its_network() -> None:
    model = composed("model.channels=[3,4,5]", "model.long_skips=[add,concat]").model
    net = build(model, 2, 3, [[2, 2, 2]] * 2, [[3, 3, 3]] * 3)
    assert parameters(net) == parameters(network(3, ("add", "concat")))
