"""One network in 2D and 3D, and switches that really cut."""

import io
import itertools
from typing import Any

import pytest
import torch
from support.config import composed
from support.networks import network
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.config.compose import check
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.nets.blocks import INSTANCE_NORM, ConvConfig, StageConfig, stage
from segpipe.nets.build import CHANNELS_LAST, build
from segpipe.nets.ensemble import Ensemble

CHANNELS = [3, 4, 5]
LONG = ["none", "add", "concat", "gate"]
SHORT = [
    ("none", "both"),
    *itertools.product(["residual", "dense"], ["encoder", "decoder", "both"]),
]
DOWN, UP = ["stride", "maxpool", "transition"], ["transposed", "nearest", "linear"]
COMBINATIONS = list(itertools.product([2, 3], LONG, SHORT, DOWN, UP))  # 504


def image(dims: int, *, seed: int = 0) -> Tensor:
    return torch.randn(
        2, 2, *(8, 12, 8)[:dims], dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize(("dims", "long", "short", "down", "up"), COMBINATIONS)
def test_every_combination_keeps_the_space_learns_and_is_stored(
    dims: int, long: str, short: tuple[str, str], down: str, up: str
) -> None:
    net = network(dims, (long, long), short, down, up)
    logits = net(image(dims))
    assert logits.shape == (2, 3, *image(dims).shape[2:])
    logits.square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    again = network(dims, (long, long), short, down, up, seed=1)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(image(dims)), net(image(dims)))


def inflate(flat: nn.Module, deep: nn.Module) -> None:
    """Copies 2D weights into a 3D twin that sees one slice at a time but for its strides."""
    for thin, thick in zip(flat.parameters(), deep.parameters(), strict=True):
        with torch.no_grad():
            thick.copy_(thin if thin.ndim != 4 else thin[..., None].expand_as(thick))


@pytest.mark.parametrize(
    ("long", "short", "down", "up"), list(itertools.product(LONG, SHORT, DOWN, UP))
)
def test_a_3d_network_is_its_2d_twin_on_a_volume_that_repeats(
    long: str, short: tuple[str, str], down: str, up: str
) -> None:
    """With kernels 1 wide along the repeated axis, for every switch: it is one network."""
    flat = network(2, (long, long), short, down, up)
    deep = network(3, (long, long), short, down, up, kernels=[[3, 3, 1]] * 3)
    inflate(flat, deep)
    one = image(2)
    repeated = one[..., None].expand(*one.shape, 8)
    torch.testing.assert_close(
        deep(repeated), flat(one)[..., None].expand(-1, -1, -1, -1, 8), atol=1e-11, rtol=1e-11
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("level", "skip"), list(itertools.product([0, 1], LONG)))
def test_each_long_switch_really_cuts(dims: int, level: int, skip: str) -> None:
    """The output's gradient with respect to what a long skip carries is zero when it is off, and not when it is on."""
    skips = ["concat", "concat"]
    skips[level] = skip
    net = network(dims, tuple(skips))
    carried: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        carried.append(inputs[1].detach().requires_grad_())
        return inputs[0], carried[0]

    net.skips[level].register_forward_pre_hook(keep)
    net(image(dims)).square().sum().backward()
    gradient = carried[0].grad
    assert (gradient is not None and bool(gradient.abs().max() > 0)) == (skip != "none")


@pytest.mark.parametrize("short", ["none", "residual", "dense"])
@pytest.mark.parametrize("where", ["encoder", "decoder", "both"])
def test_short_skips_stand_where_they_are_asked_for(short: str, where: str) -> None:
    """With every convolution of a block at zero, only a short skip still carries the input through a stage."""
    net = network(2, short=(short, where))
    kinds = {"none": (), "residual": ("Residual",), "dense": ("Dense",)}[short]
    for part, stages in (
        ("encoder", [net.stem, *net.downs]),
        ("decoder", list(net.decoder_stages)),
    ):
        for one in stages:
            found = [type(module).__name__ in ("Residual", "Dense") for module in one.modules()]
            assert any(found) == (short != "none" and where in (part, "both"))
            assert {
                type(m).__name__ for m in one.modules() if type(m).__name__ in ("Residual", "Dense")
            } <= set(kinds)


def test_a_residual_block_with_no_weights_is_the_identity() -> None:
    style = ConvConfig(2, norm="none", order="pre")
    block = stage(style, StageConfig(short_skips="residual"), 4, 4, 3)
    for weight in block.parameters():
        nn.init.zeros_(weight)
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(block(x.clone()), x)


def test_a_dense_layer_sees_all_earlier_ones() -> None:
    options = StageConfig(short_skips="dense", convs=4, growth=5)
    dense, transition = stage(ConvConfig(2), options, 3, 8, 3)
    assert [layer[0].in_channels for layer in dense.layers] == [3, 8, 13, 18]
    assert (transition[0].in_channels, transition[0].out_channels) == (23, 8)
    x = torch.randn(2, 3, 6, 6)
    everything, new = (stage(ConvConfig(2), options, 3, outside, 3) for outside in (23, 20))
    assert torch.equal(everything(x)[:, :3], x)
    new.load_state_dict(everything.state_dict())
    assert torch.equal(new(x), everything(x)[:, 3:])


def test_a_dense_stage_is_entered_by_a_convolution_where_it_must_be() -> None:
    options = StageConfig(short_skips="dense", convs=2, growth=5, first=0.5)
    for stride, stem, entering in ((1, False, 3), (2, False, 4), (1, True, 4)):
        steps = stage(ConvConfig(2), options, 3, 8, 3, stride, stem)
        assert len(steps) == 2 + (entering != 3)
        assert [layer[0].in_channels for layer in steps[-2].layers] == [entering, entering + 5]


def parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_what_each_long_skip_adds_is_what_algebra_says(dims: int) -> None:
    sizes = {skip: parameters(network(dims, (skip, skip))) for skip in LONG}
    assert sizes["none"] == sizes["add"]
    assert sizes["concat"] - sizes["none"] == 3**dims * (3**2 + 4**2)
    gates = sum(2 * (c + 1) * (c // 2) + c // 2 + 1 for c in (3, 4))
    assert sizes["gate"] - sizes["concat"] == gates


def test_residual_costs_only_its_projections() -> None:
    plain, residual = network(3), network(3, short=("residual", "encoder"))
    projections = sum(
        a * b + 2 * b for a, b in ((2, 3), (3, 4), (4, 5))
    )  # 1x1 convolutions and their norms
    assert parameters(residual) - parameters(plain) == projections


@pytest.mark.parametrize("dims", [2, 3])
def test_a_strided_projection_computes_what_the_convolution_would(dims: int) -> None:
    thin = ConvConfig(dims, bias=True).conv(2, 3, 1, 2).double()
    x = image(dims)
    strided = (F.conv2d if dims == 2 else F.conv3d)(x, thin[1].weight, thin[1].bias, stride=2)  # type: ignore[index, arg-type]
    torch.testing.assert_close(thin(x), strided, rtol=0, atol=0)


def test_no_1x1_convolution_of_a_residual_network_has_a_stride() -> None:
    """oneDNN 3.11 ends the process at a strided 1x1 convolution of 4 to 15 channels: there must be none."""
    model = network(2, short=("residual", "both"), down="stride")
    strided = [
        one for one in model.modules() if isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1)
    ]
    assert {one.stride for one in strided} == {(1, 1)}


def test_none_and_add_share_their_weights_but_not_their_output() -> None:
    """Why a checkpoint holds its config: weights alone would load into the other network without an error."""
    one, other = network(2, ("none", "none")), network(2, ("add", "add"), seed=1)
    other.load_state_dict(one.state_dict())
    assert not torch.allclose(one(image(2)), other(image(2)))


@pytest.mark.parametrize("skip", ["add", "concat", "gate"])
def test_a_dropped_skip_is_no_skip_and_only_in_training(skip: str) -> None:
    always, never = network(2, (skip, skip), skip_dropout=1 - 1e-12), network(2, (skip, skip))
    always.load_state_dict(never.state_dict())
    assert torch.equal(always.eval()(image(2)), never.eval()(image(2)))
    always.train()
    seen: list[Tensor] = []
    always.skips[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    for _ in range(2):
        always(image(2))
    kept = seen[0][:, 3:] if skip != "add" else seen[0]
    assert (kept.abs().sum() == 0) == (skip != "add")


@pytest.mark.parametrize("style", [ConvConfig(2, norm=norm, activation=act, order=order, dropout=0.2)  # type: ignore[arg-type]
                                   for norm in ("instance", "batch", "group", "none")
                                   for act in ("leaky_relu", "relu", "prelu", "elu") for order in ("post", "pre")])  # fmt: skip
@pytest.mark.parametrize("block", ["plain", "bottleneck"])
def test_every_style_learns(style: ConvConfig, block: str) -> None:
    net = network(2, short=("residual", "both"), style=style, block=block, blocks=2)
    given = image(2)
    net(given).square().sum().backward()
    assert torch.equal(given, image(2))
    assert all(
        weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters()
    )


def test_gradients_are_those_of_finite_differences() -> None:
    net = network(2, ("gate", "add"), ("dense", "both"), up="linear")
    x = image(2)[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda given: net(given)[:, :, ::3, ::3], x, atol=1e-6)


def test_strides_and_kernels_may_differ_along_the_axes() -> None:
    for down, up in itertools.product(DOWN, UP):
        net = network(
            3, down=down, up=up, strides=[[2, 2, 1], [2, 1, 2]], kernels=[[3, 3, 1], 3, [1, 3, 3]]
        )
        assert net(image(3)).shape == (2, 3, 8, 12, 8)


def test_upsampling_may_keep_the_coarser_levels_channels() -> None:
    for skip in LONG:
        net = network(2, (skip, skip), up_keeps_channels=True)
        assert net(image(2)).shape == (2, 3, 8, 12)
        assert [up.out_channels for up in net.ups] == CHANNELS[1:]
    project = network(2, ("add", "add"), up_keeps_channels=True).skips[0].project
    assert (project.in_channels, project.out_channels) == (
        4,
        3,
    )  # to the skip's, which goes across as it is


def test_deep_supervision_gives_each_level_in_training_only() -> None:
    net = network(3, deep_supervision=True)
    assert [tuple(level.shape[2:]) for level in net(image(3))] == [(8, 12, 8), (4, 6, 4)]
    assert net.eval()(image(3)).shape == (2, 3, 8, 12, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "long", "short", "down", "up"), COMBINATIONS)
def test_every_combination_can_be_exported(
    dims: int, long: str, short: tuple[str, str], down: str, up: str
) -> None:
    net = network(dims, (long, long), short, down, up).eval()
    exported = torch.export.export(net, (image(dims),)).module()
    torch.testing.assert_close(exported(image(dims)), net(image(dims)))


def test_a_config_becomes_its_network() -> None:
    options = composed(
        "model.channels=[3,4,5]",
        "model.long_skips=[add,gate]",
        "model.short_skips=dense",
        "model.growth_rate=2",
        "model.deep_supervision=false",
    )
    net = build(options.model, 2, 3, [[2, 2, 2]] * 2, [[3, 3, 3]] * 3)
    assert parameters(net) == parameters(network(3, ("add", "gate"), ("dense", "both")))


def test_what_is_given_per_level_stands_at_its_level() -> None:
    model = composed(
        "model.channels=[4,8,8]", "model.decoder_channels=[6,8]", "model.down=[maxpool,stride]", "model.convs=[1,2,1]",
        "model.short_skips=[none,residual,residual]", "model.block=[plain,plain,bottleneck]", "model.decoder_convs=[2,1]",
    ).model  # fmt: skip
    net = build(model, 1, 2, [[2, 2, 2]] * 2, [[3, 3, 3]] * 3).eval()
    assert [type(down[0]).__name__ for down in net.downs] == ["MaxPool3d", "Identity"]
    assert [type(one[0]).__name__ for one in (net.stem, net.downs[0][1], net.decoder_stages[0], net.decoder_stages[1])] == [
        "Sequential", "Residual", "Sequential", "Residual",
    ]  # fmt: skip
    assert [
        len(net.downs[0][1][0].body),
        len(net.downs[1][1][0].body),
        len(net.decoder_stages[0][0]),
    ] == [2, 3, 2]
    assert net.heads[0].in_channels == 6
    assert net(torch.randn(1, 1, 8, 8, 8)).shape == (1, 2, 8, 8, 8)


@pytest.mark.parametrize("up", UP)
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_upsampling_keeps_its_size_whatever_its_kernel(up: str, kernel: int) -> None:
    model = composed("model.channels=[4,8]", f"model.up={up}", f"model.up_kernel={kernel}").model
    net = build(model, 1, 2, [[2, 2, 1]], [[3, 3, 1]] * 2)
    assert net(torch.randn(1, 1, 6, 8, 5)).shape == (1, 2, 6, 8, 5)
    width = max(kernel, 2) if up == "transposed" else kernel
    assert (net.ups[0] if up == "transposed" else net.ups[0][1]).kernel_size == (width, width, 1)


def test_the_image_meets_a_convolution_first() -> None:
    """Else pre-activation would cut away all that is darker than the mean (He 2016b)."""
    for block, short in itertools.product(("plain", "bottleneck"), ("none", "residual", "dense")):
        if (block, short) == ("bottleneck", "dense"):
            continue
        net = network(2, short=(short, "both"), style=ConvConfig(2, order="pre"), block=block)
        first = next(module for module in net.stem.modules() if not list(module.children()))
        assert isinstance(first, nn.Conv2d)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["model.long_skips=[add,none]"],
            "model.long_skips has 2 entries; model.channels has 4 levels, so give 3",
        ),
        (
            ["model.short_skips=dense"],
            "model.short_skips=dense needs model.growth_rate, the channels that each layer adds",
        ),
        (
            ["model.short_skips=dense", "model.growth_rate=8", "model.block=bottleneck"],
            "model.short_skips=dense has layers, not bottlenecks",
        ),
        (
            ["model.short_skips=dense", "model.growth_rate=8", "model.blocks=2"],
            "model.short_skips=dense has layers, not blocks",
        ),
        (
            ["model.up=nearest", "model.up_kernel=0"],
            "model.up_kernel=0 leaves no convolution that could change channels",
        ),
        (
            ["model.up=nearest", "model.up_kernel=4"],
            "model.up_kernel: 4 has no middle voxel: use 5",
        ),
        (
            ["model.decoder_channels=[8]"],
            "model.decoder_channels has 1 entries; model.channels has 4 levels, so give 3",
        ),
        (
            ["model.short_skips=[none,dense]"],
            "model.short_skips has 2 entries; model.channels has 4 levels, so give 4",
        ),
        (
            ["model.short_skips=[none,dense,none,none]"],
            "model.short_skips=dense (level 1) needs model.growth_rate",
        ),
        (
            ["model.convs=[1,2]"],
            "model.convs has 2 entries; model.channels has 4 levels, so give 4 (finest first)",
        ),
        (["model.kernel=4"], "model.kernel: 4 has no middle voxel: use 3 or 5"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check("train", Train, overrides)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_is_pytorchs_and_leaves_channels_last(dims: int) -> None:
    """Output and all gradients, in float64; the memory format that the next convolution is fast in stays."""
    kinds: list[Any] = [INSTANCE_NORM[dims], {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims]]
    ours, theirs = (kind(5, affine=True).double() for kind in kinds)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.linspace(-1, 2, 5))
            norm.bias.copy_(torch.linspace(3, -1, 5))
    x = torch.randn(3, 5, *(6, 4, 3)[:dims], dtype=torch.float64).to(
        memory_format=CHANNELS_LAST[dims]
    )
    found = []
    for norm in (ours, theirs):
        given = x.clone().requires_grad_()
        out = norm(given)
        out.square().sum().backward()
        found.append([out, given.grad, norm.weight.grad, norm.bias.grad])
    assert all(torch.allclose(*pair, atol=1e-12) for pair in zip(*found, strict=True))
    assert found[0][0].is_contiguous(memory_format=CHANNELS_LAST[dims])


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_ensemble_is_the_mean_over_networks_and_mirror_images(exclusive: bool) -> None:
    torch.manual_seed(0)
    networks = [nn.Conv3d(1, 3, 3, padding=1) for _ in range(2)]
    x, chances = (
        torch.randn(2, 1, 4, 5, 6),
        (lambda logits: torch.softmax(logits, 1)) if exclusive else torch.sigmoid,
    )
    flips = [(), (2,), (4,), (2, 4)]
    expected = torch.stack(
        [chances(net(x.flip(flip)).flip(flip)) for net in networks for flip in flips]
    ).mean(0)
    torch.testing.assert_close(
        chances(Ensemble(networks, exclusive, [0, 2])(x)), expected, atol=1e-6, rtol=1e-5
    )
    symmetric = Ensemble(networks, exclusive, [0, 2])
    torch.testing.assert_close(symmetric(x.flip(2)), symmetric(x).flip(2), atol=1e-6, rtol=1e-5)
