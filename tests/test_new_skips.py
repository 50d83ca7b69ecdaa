"""A new skip, block or network is one registered entry: nothing else has to know of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.config import composed
from torch import Tensor, nn

from segpipe.config.compose import check
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.nets.blocks import StageSpec, build_block
from segpipe.nets.build import build, init_weights
from segpipe.nets.conv import CONV, ConvConfig
from segpipe.nets.describe import describe
from segpipe.nets.match import match
from segpipe.nets.skip_inputs import skip_inputs
from segpipe.nets.skips import AddSkip
from segpipe.registry import BLOCKS, LONG_SKIPS, NETWORKS, SHORT_SKIPS, Registry
from segpipe.reporting.drawing import NEUTRAL, colour_of, draw_network
from segpipe.text import times

SMALL = ["model.channels=[4,8,8]", "model.deep_supervision=false", "model.dims=2"]
SHAPE = (1, 3, [[2, 2]] * 2, [[3, 3]] * 3)


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    """Forget what a test registers."""
    registries: list[Registry[Any]] = [LONG_SKIPS, SHORT_SKIPS, BLOCKS, NETWORKS]
    before = [(dict(registry.added), dict(registry.values)) for registry in registries]
    yield
    for registry, (added, values) in zip(registries, before, strict=True):
        registry.added = added
        registry.values = values


def register_gate_add() -> None:
    @LONG_SKIPS.register("gate_add", help="attention gate, then sum", colour="#CC79A7")
    class GateAddSkip(AddSkip):
        """The sum of both, the skip weighted voxel by voxel."""

        def __init__(
            self, config: ConvConfig, up_channels: int, skip_channels: int, drop: float
        ) -> None:
            super().__init__(config, up_channels, skip_channels, drop)
            self.gate = CONV[config.dims](up_channels, 1, 1)

        def join(self, up: Tensor, skip: Tensor) -> Tensor:
            return self.project(up) + torch.sigmoid(self.gate(up)) * skip


def one_step(net: nn.Module) -> None:
    """Train a network for a step and check that its loss falls and every weight has a gradient."""
    image = torch.randn(2, 1, 16, 16)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)

    def loss() -> Tensor:
        return net(image).square().mean()

    before = loss()
    before.backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
    optimiser.step()
    assert loss().item() < before.item()


def test_a_new_long_skip_is_built_described_matched_drawn_and_trained(tmp_path: Path) -> None:
    register_gate_add()
    model = composed(*SMALL, "model.long_skips=[gate_add,none]").model
    net = build(model, *SHAPE)
    init_weights(net, seed=0)
    assert isinstance(net.skips[0], LONG_SKIPS["gate_add"])
    one_step(net)
    assert [skip.name for skip in skip_inputs(net)] == ["level 0"]
    stages = describe(model, *SHAPE, [16, 16])
    assert {stage.name: stage.long_skip for stage in stages}["decoder 0"] == "gate_add"
    wide = ["model.channels=[16,32,64]", "model.dims=2", "model.match=params"]
    matched = match(composed(*wide, "model.long_skips=gate_add").model, *SHAPE, [16, 16])
    assert abs(matched.deviation) <= 0.01
    picture = tmp_path / "network.png"
    draw_network(stages, "gate_add", picture)
    assert picture.stat().st_size > 10_000
    assert colour_of(LONG_SKIPS, "gate_add") == "#CC79A7"


def test_a_skip_that_is_not_registered_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'none', 'add', 'concat' or 'gate'"):
        check("train", Train, ["model.long_skips=gate_add"])


def test_a_skip_without_a_colour_is_drawn_in_a_neutral_one(tmp_path: Path) -> None:
    LONG_SKIPS.register("plain_add", help="sum")(type("PlainAdd", (AddSkip,), {}))
    assert colour_of(LONG_SKIPS, "plain_add") == NEUTRAL
    stages = describe(composed(*SMALL, "model.long_skips=plain_add").model, *SHAPE, [16, 16])
    draw_network(stages, "plain_add", tmp_path / "network.png")


def test_a_new_short_skip_and_a_new_block_are_built(tmp_path: Path) -> None:
    @BLOCKS.register("pointwise", help="one 1-wide convolution")
    def pointwise(spec: StageSpec, activate: bool) -> nn.Sequential:
        unit = spec.config.unit(
            spec.in_channels, spec.out_channels, 1, spec.stride, activate, spec.stem
        )
        return nn.Sequential(unit)

    @SHORT_SKIPS.register("mean", help="mean of two branches", colour="#56B4E9")
    def mean(spec: StageSpec) -> nn.Sequential:
        first, *later = spec.per_block()
        return nn.Sequential(Mean(first), *(Mean(block) for block in later))

    class Mean(nn.Module):
        def __init__(self, spec: StageSpec) -> None:
            super().__init__()
            self.first = build_block(spec)
            self.second = build_block(replace(spec))

        def forward(self, x: Tensor) -> Tensor:
            return (self.first(x) + self.second(x)) / 2

    model = composed(*SMALL, "model.short_skips=mean", "model.block=pointwise").model
    one_step(build(model, *SHAPE))
    stages = describe(model, *SHAPE, [16, 16])
    assert [stage.short_skip for stage in stages] == ["mean"] * 5 + [""]
    draw_network(stages, "mean", tmp_path / "network.png")


def test_a_new_network_comes_before_those_of_monai(tmp_path: Path) -> None:
    @NETWORKS.register("one_conv", help="a single convolution")
    def one_conv(
        spatial_dims: int, in_channels: int, out_channels: int, kernel: int = 3
    ) -> nn.Module:
        return nn.Sequential(
            CONV[spatial_dims](in_channels, out_channels, kernel, padding=kernel // 2)
        )

    options = ["model=monai", "model.network=one_conv", "model.dims=2"]
    net = build(composed(*options, "model.arguments={kernel:5}").model, *SHAPE)
    assert net[0].kernel_size == (5, 5)
    one_step(net)
    stages = describe(composed(*options, "model.arguments=null").model, *SHAPE, [16, 16])
    assert times(stages[0].size) == "16x16"
    draw_network(stages, "one_conv", tmp_path / "network.png")
    with pytest.raises(ConfigError, match=r"model.arguments.kernal is no argument of one_conv"):
        build(composed(*options, "model.arguments={kernal:5}").model, *SHAPE)
    with pytest.raises(ConfigError, match=r"is no class of monai.networks.nets and none of one_"):
        build(composed("model=monai", "model.network=one_con").model, *SHAPE)
