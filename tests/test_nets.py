"""One network in 2D and 3D, and switches that really cut."""

import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from support.config import composed
from support.networks import CHANNELS, network
from support.pairwise import pairwise
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.config.compose import check
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.nets.blocks import Dense, Residual, StageConfig, stage
from segpipe.nets.build import CHANNELS_LAST, build
from segpipe.nets.conv import INSTANCE_NORM, ConvConfig
from segpipe.nets.ensemble import Ensemble
from segpipe.registry import BLOCKS, LONG_SKIPS, SHORT_SKIPS

LONG = LONG_SKIPS.names()
WITH_SKIP = [name for name in LONG if name != "none"]
WHERE = ["encoder", "decoder", "both"]
SHORT = [("none", "both")]
SHORT += itertools.product([name for name in SHORT_SKIPS if name != "none"], WHERE)
DOWN = ["stride", "maxpool", "transition"]
UP = ["transposed", "nearest", "linear"]
SWITCHES = (LONG, SHORT, DOWN, UP, BLOCKS.names())
NETWORKS = ([2, 3], *SWITCHES)
Short = tuple[str, str]


def image(dims: int, *, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, *(8, 12, 8)[:dims], dtype=torch.float64, generator=rng)


def parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def learns_and_is_stored(
    dims: int, long: str, short: Short, down: str, up: str, block: str
) -> None:
    """Check the size of the logits, the gradients, and that stored weights give the same logits."""
    net = network(dims, (long, long), short, down, up, block=block)
    logits = net(image(dims))
    assert logits.shape == (2, 3, *image(dims).shape[2:])
    logits.square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    loaded = network(dims, (long, long), short, down, up, seed=1, block=block)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded(image(dims)), net(image(dims)))


def inflate(flat: nn.Module, deep: nn.Module) -> None:
    """Copy 2D weights into a 3D network that, but for its strides, sees one slice at a time."""
    for weight_2d, weight_3d in zip(flat.parameters(), deep.parameters(), strict=True):
        with torch.no_grad():
            inflated = weight_2d[..., None] if weight_2d.ndim == 4 else weight_2d
            weight_3d.copy_(inflated.expand_as(weight_3d))


def is_its_2d_twin(long: str, short: Short, down: str, up: str, block: str) -> None:
    """Check that 2D and 3D agree on a volume that is constant along the third axis."""
    flat = network(2, (long, long), short, down, up, block=block)
    deep = network(3, (long, long), short, down, up, kernels=[[3, 3, 1]] * 3, block=block)
    inflate(flat, deep)
    x = image(2)
    volume = x[..., None].expand(*x.shape, 8)
    expected = flat(x)[..., None].expand(-1, -1, -1, -1, 8)
    torch.testing.assert_close(deep(volume), expected, atol=1e-11, rtol=1e-11)


def is_exported(dims: int, long: str, short: Short, down: str, up: str, block: str) -> None:
    net = network(dims, (long, long), short, down, up, block=block).eval()
    exported = torch.export.export(net, (image(dims),)).module()
    torch.testing.assert_close(exported(image(dims)), net(image(dims)))


def test_pairwise_rows_hold_every_pair_of_switches() -> None:
    rows = pairwise(*NETWORKS)
    assert len(rows) < 45
    for first, second in itertools.combinations(range(len(NETWORKS)), 2):
        pairs = {(row[first], row[second]) for row in rows}
        assert len(pairs) == len(NETWORKS[first]) * len(NETWORKS[second])


@pytest.mark.parametrize(("dims", "long", "short", "down", "up", "block"), pairwise(*NETWORKS))
def test_every_pair_of_switches_keeps_the_size_learns_and_is_stored(
    dims: int, long: str, short: Short, down: str, up: str, block: str
) -> None:
    learns_and_is_stored(dims, long, short, down, up, block)


@pytest.mark.parametrize(("long", "short", "down", "up", "block"), pairwise(*SWITCHES))
def test_a_3d_network_is_its_2d_twin_on_a_volume_that_repeats(
    long: str, short: Short, down: str, up: str, block: str
) -> None:
    """With kernels 1 wide along the repeated axis, for every switch: it is one network."""
    is_its_2d_twin(long, short, down, up, block)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check_one", "choices"),
    [(learns_and_is_stored, NETWORKS), (is_its_2d_twin, SWITCHES), (is_exported, NETWORKS)],
)
def test_every_combination_of_switches(
    check_one: Callable[..., None], choices: Sequence[Any], subtests: pytest.Subtests
) -> None:
    for row in itertools.product(*choices):
        with subtests.test(row=row):
            check_one(*row)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("level", "skip"), list(itertools.product([0, 1], LONG)))
def test_each_long_switch_really_cuts(dims: int, level: int, skip: str) -> None:
    """The gradient of the output with respect to a skip is 0 if it is off, and not if it is on."""
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
    arrives = gradient is not None and bool(gradient.abs().max() > 0)
    assert arrives == (skip != "none")


def kinds_of_short_skips(part: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in part.modules()} & {Residual, Dense}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("short", "expected"), [("none", set()), ("residual", {Residual}), ("dense", {Dense})]
)
def test_short_skips_are_where_they_are_requested(
    short: str, expected: set[type[nn.Module]], where: str
) -> None:
    net = network(2, short=(short, where))
    for encoder_stage in [net.stem, *net.downs]:
        in_encoder = expected if where != "decoder" else set()
        assert kinds_of_short_skips(encoder_stage) == in_encoder
    for decoder_stage in net.decoder_stages:
        in_decoder = expected if where != "encoder" else set()
        assert kinds_of_short_skips(decoder_stage) == in_decoder


def test_a_residual_block_with_no_weights_is_the_identity() -> None:
    config = ConvConfig(2, norm="none", order="pre")
    block = stage(config, StageConfig(short_skips="residual"), 4, 4, 3)
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
    with_input = stage(ConvConfig(2), options, 3, 23, 3)
    without_input = stage(ConvConfig(2), options, 3, 20, 3)
    assert torch.equal(with_input(x)[:, :3], x)
    without_input.load_state_dict(with_input.state_dict())
    assert torch.equal(without_input(x), with_input(x)[:, 3:])


@pytest.mark.parametrize(
    ("stride", "stem", "entering"), [(1, False, 3), (2, False, 4), (1, True, 4)]
)
def test_a_dense_stage_begins_with_a_convolution_if_it_strides_or_is_a_stem(
    stride: int, stem: bool, entering: int
) -> None:
    options = StageConfig(short_skips="dense", convs=2, growth=5, first=0.5)
    parts = stage(ConvConfig(2), options, 3, 8, 3, stride, stem)
    assert len(parts) == 2 + (entering != 3)
    assert [layer[0].in_channels for layer in parts[-2].layers] == [entering, entering + 5]


@pytest.mark.parametrize("dims", [2, 3])
def test_the_parameters_of_each_long_skip_are_those_of_algebra(dims: int) -> None:
    sizes = {skip: parameters(network(dims, (skip, skip))) for skip in LONG}
    assert sizes["none"] == sizes["add"]
    assert sizes["concat"] - sizes["none"] == 3**dims * (3**2 + 4**2)
    gates = 0
    for channels in (3, 4):
        inner = channels // 2
        gates += 2 * (channels + 1) * inner + inner + 1
    assert sizes["gate"] - sizes["concat"] == gates


def test_residual_costs_only_its_projections() -> None:
    """Each is a 1x1 convolution and its norm."""
    plain = parameters(network(3))
    residual = parameters(network(3, short=("residual", "encoder")))
    projections = sum(a * b + 2 * b for a, b in ((2, 3), (3, 4), (4, 5)))
    assert residual - plain == projections


@pytest.mark.parametrize("dims", [2, 3])
def test_a_strided_projection_computes_what_the_convolution_would(dims: int) -> None:
    projection = ConvConfig(dims, bias=True).conv(2, 3, 1, 2).double()
    conv = projection[1]  # type: ignore[index]
    x = image(dims)
    convolve = F.conv2d if dims == 2 else F.conv3d
    strided = convolve(x, conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(projection(x), strided, rtol=0, atol=0)


def test_no_1x1_convolution_of_a_residual_network_has_a_stride() -> None:
    """oneDNN 3.11 ends the process at a strided 1x1 convolution of 4 to 15 channels."""
    net = network(2, short=("residual", "both"), down="stride")
    strides = set()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            strides.add(module.stride)
    assert strides == {(1, 1)}


def test_none_and_add_share_their_weights_but_not_their_output() -> None:
    """Weights alone would load into the other network without an error, so configs are stored."""
    without = network(2, ("none", "none"))
    added = network(2, ("add", "add"), seed=1)
    added.load_state_dict(without.state_dict())
    assert not torch.allclose(without(image(2)), added(image(2)))


@pytest.mark.parametrize("skip", WITH_SKIP)
def test_a_dropped_skip_is_no_skip_and_only_in_training(skip: str) -> None:
    always = network(2, (skip, skip), skip_dropout=1 - 1e-12)
    never = network(2, (skip, skip))
    always.load_state_dict(never.state_dict())
    assert torch.equal(always.eval()(image(2)), never.eval()(image(2)))
    always.train()
    carried: list[Tensor] = []

    def keep(up: Tensor, skip: Tensor) -> Tensor:
        carried.append(skip)
        return join(up, skip)

    join = always.skips[0].join
    always.skips[0].join = keep  # type: ignore[method-assign]
    always(image(2))
    assert carried[0].abs().sum() == 0


@pytest.mark.parametrize(
    ("block", "norm", "activation", "order"),
    pairwise(
        BLOCKS.names(),
        ["instance", "batch", "group", "none"],
        ["leaky_relu", "relu", "prelu", "elu"],
        ["post", "pre"],
    ),
)
def test_every_convolution_learns_and_spares_its_input(
    block: str, norm: Any, activation: Any, order: Any
) -> None:
    style = ConvConfig(2, norm, activation, order, dropout=0.2)
    net = network(2, short=("residual", "both"), style=style, block=block, blocks=2)
    x = image(2)
    net(x).square().sum().backward()
    assert torch.equal(x, image(2))
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_gradients_are_those_of_finite_differences() -> None:
    net = network(2, ("gate", "add"), ("dense", "both"), up="linear")
    x = image(2)[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda image: net(image)[:, :, ::3, ::3], x, atol=1e-6)


@pytest.mark.parametrize(("down", "up"), list(itertools.product(DOWN, UP)))
def test_strides_and_kernels_may_differ_along_the_axes(down: str, up: str) -> None:
    strides: list[int | list[int]] = [[2, 2, 1], [2, 1, 2]]
    net = network(3, down=down, up=up, strides=strides, kernels=[[3, 3, 1], 3, [1, 3, 3]])
    assert net(image(3)).shape == (2, 3, 8, 12, 8)


@pytest.mark.parametrize("skip", LONG)
def test_upsampling_may_keep_the_coarser_levels_channels(skip: str) -> None:
    net = network(2, (skip, skip), up_keeps_channels=True)
    assert net(image(2)).shape == (2, 3, 8, 12)
    assert [up.out_channels for up in net.ups] == CHANNELS[1:]


def test_a_sum_projects_to_the_channels_of_the_skip() -> None:
    project = network(2, ("add", "add"), up_keeps_channels=True).skips[0].project
    assert (project.in_channels, project.out_channels) == (4, 3)


def test_deep_supervision_gives_each_level_in_training_only() -> None:
    net = network(3, deep_supervision=True)
    assert [tuple(level.shape[2:]) for level in net(image(3))] == [(8, 12, 8), (4, 6, 4)]
    assert net.eval()(image(3)).shape == (2, 3, 8, 12, 8)


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


def test_what_is_given_per_level_is_at_its_level() -> None:
    model = composed(
        "model.channels=[4,8,8]",
        "model.decoder_channels=[6,8]",
        "model.down=[maxpool,stride]",
        "model.convs=[1,2,1]",
        "model.short_skips=[none,residual,residual]",
        "model.block=[plain,plain,bottleneck]",
        "model.decoder_convs=[2,1]",
    ).model
    net = build(model, 1, 2, [[2, 2, 2]] * 2, [[3, 3, 3]] * 3).eval()
    middle = net.downs[0]
    coarsest = net.downs[1]
    assert isinstance(middle[0], nn.MaxPool3d)
    assert isinstance(coarsest[0], nn.Identity)
    blocks = [net.stem[0], middle[1][0], *(stage[0] for stage in net.decoder_stages)]
    assert [isinstance(block, Residual) for block in blocks] == [False, True, False, True]
    assert len(middle[1][0].body) == 2
    assert len(coarsest[1][0].body) == 3
    assert len(net.decoder_stages[0][0]) == 2
    assert net.heads[0].in_channels == 6
    assert net(torch.randn(1, 1, 8, 8, 8)).shape == (1, 2, 8, 8, 8)


@pytest.mark.parametrize("up", UP)
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_upsampling_keeps_its_size_whatever_its_kernel(up: str, kernel: int) -> None:
    model = composed("model.channels=[4,8]", f"model.up={up}", f"model.up_kernel={kernel}").model
    net = build(model, 1, 2, [[2, 2, 1]], [[3, 3, 1]] * 2)
    assert net(torch.randn(1, 1, 6, 8, 5)).shape == (1, 2, 6, 8, 5)
    conv = net.ups[0] if up == "transposed" else net.ups[0][1]
    width = max(kernel, 2) if up == "transposed" else kernel
    assert conv.kernel_size == (width, width, 1)


@pytest.mark.parametrize(("block", "short"), list(itertools.product(BLOCKS, SHORT_SKIPS)))
def test_the_image_meets_a_convolution_first(block: str, short: str) -> None:
    """Otherwise pre-activation would cut away all that is darker than the mean (He 2016b)."""
    net = network(2, short=(short, "both"), style=ConvConfig(2, order="pre"), block=block)
    first = next(module for module in net.stem.modules() if not list(module.children()))
    assert isinstance(first, nn.Conv2d)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["model.long_skips=[add,none]", "model.channels=[4,8,16,32]"],
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
            ["model.decoder_channels=[8]", "model.channels=[4,8,16,32]"],
            "model.decoder_channels has 1 entries; model.channels has 4 levels, so give 3",
        ),
        (
            ["model.short_skips=[none,dense]", "model.channels=[4,8,16,32]"],
            "model.short_skips has 2 entries; model.channels has 4 levels, so give 4",
        ),
        (
            ["model.short_skips=[none,dense,none,none]"],
            "model.short_skips=dense (level 1) needs model.growth_rate",
        ),
        (
            ["model.convs=[1,2]", "model.channels=[4,8,16,32]"],
            "model.convs has 2 entries; model.channels has 4 levels, so give 4 (finest first)",
        ),
        (
            ["model.blocks=[1,1,2]", "model.long_skips=[add,none,add]"],
            "model.long_skips has 3 entries; model.blocks is for 3 levels, so give 2 (finest",
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
    """Output and all gradients in float64; the next convolution is fast with channels last."""
    theirs = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims]
    memory_format = CHANNELS_LAST[dims]
    x = torch.randn(3, 5, *(6, 4, 3)[:dims], dtype=torch.float64)
    x = x.to(memory_format=memory_format)
    results = []
    for kind in (INSTANCE_NORM[dims], theirs):
        norm = kind(5, affine=True).double()
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(-1, 2, 5))
            norm.bias.copy_(torch.linspace(3, -1, 5))
        given = x.clone().requires_grad_()
        output = norm(given)
        output.square().sum().backward()
        results.append([output, given.grad, norm.weight.grad, norm.bias.grad])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-12)
    assert results[0][0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_ensemble_is_the_mean_over_networks_and_mirror_images(exclusive: bool) -> None:
    torch.manual_seed(0)
    networks = [nn.Conv3d(1, 3, 3, padding=1) for _ in range(2)]
    x = torch.randn(2, 1, 4, 5, 6)

    def probabilities(logits: Tensor) -> Tensor:
        return torch.softmax(logits, 1) if exclusive else torch.sigmoid(logits)

    flips: list[tuple[int, ...]] = [(), (2,), (4,), (2, 4)]
    expected = []
    for net, flip in itertools.product(networks, flips):
        expected.append(probabilities(net(x.flip(flip)).flip(flip)))
    ensemble = Ensemble(networks, exclusive, [0, 2])
    mean = torch.stack(expected).mean(0)
    torch.testing.assert_close(probabilities(ensemble(x)), mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ensemble(x.flip(2)), ensemble(x).flip(2), atol=1e-6, rtol=1e-5)
