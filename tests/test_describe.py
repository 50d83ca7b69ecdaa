"""Descriptions match the networks; matched variants are as large as their reference."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from support.config import network
from torch import nn

from segpipe.config.compose import CONF, check
from segpipe.config.model import Model
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.nets.build import build, build_meta
from segpipe.nets.build import check as check_network
from segpipe.nets.conv import CONV
from segpipe.nets.describe import Stage, count_parameters, describe
from segpipe.nets.match import match
from segpipe.reporting.drawing import draw_network

UNETS = sorted(file.stem for file in (CONF / "model").glob("*.yaml") if file.stem != "monai")
SMALL = ["model.channels=[2,3,4]", "model.norm=none"]


def shape(model: object, in_channels: int = 1, labels: int = 3) -> tuple:
    levels, dims = model.levels, model.dims  # type: ignore[attr-defined]
    return model, in_channels, labels, [[2] * dims] * (levels - 1), [[3] * dims] * levels


def stages(*overrides: str, size: int = 16) -> list[Stage]:
    model = network(*overrides)
    return describe(*shape(model), [size] * model.dims)


def reach(net: nn.Module, dims: int, size: int) -> int:
    """Return how many voxels of the image an output voxel depends on, at most, along one axis."""
    for module in net.modules():
        if isinstance(module, (*CONV.values(), nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.constant_(module.weight, 0.1)
    image = torch.randn(1, 1, *[size] * dims).abs().requires_grad_()
    logits = net.eval()(image)
    middle = size // 2
    widths = []
    for position in range(middle - 4, middle + 4):
        voxel = (0, 0, position, *[middle] * (dims - 1))
        (gradient,) = torch.autograd.grad(logits[voxel], image, retain_graph=True)
        touched = gradient[0, 0].abs().flatten(1).sum(1).nonzero()
        widths.append(int(touched.max() - touched.min()) + 1)
    return max(widths)


@pytest.mark.parametrize("up", ["transposed", "nearest", "linear"])
@pytest.mark.parametrize(
    "more", [[], ["model.short_skips=residual"], ["model.kernel=5"], ["model.up_kernel=3"]]
)
def test_the_receptive_field_is_what_the_gradient_reaches(up: str, more: list[str]) -> None:
    model = network("model.dims=2", *SMALL, "model.activation=elu", f"model.up={up}", *more)
    described = describe(*shape(model), [128, 128])
    measured = reach(build(*shape(model)), 2, 128)
    last = next(stage for stage in described if stage.name == "decoder 0")
    assert last.receptive_field == (measured, measured)


def test_multiply_adds_and_parameters_are_those_of_algebra() -> None:
    found = {stage.name: stage for stage in stages("model.dims=2", *SMALL, size=16)}
    assert found["encoder 0"].parameters == (1 * 9 + 1) * 2 + (2 * 9 + 1) * 2
    assert found["encoder 0"].multiply_adds == 16 * 16 * 9 * (1 * 2 + 2 * 2)
    assert found["encoder 1"].multiply_adds == 8 * 8 * 9 * (2 * 3 + 3 * 3)
    assert found["decoder 0"].multiply_adds == 8 * 8 * 3 * 2 * 4 + 16 * 16 * 9 * (4 * 2 + 2 * 2)
    assert found["head 0"].multiply_adds == 16 * 16 * 2 * 3
    assert (found["encoder 0"].channels, found["encoder 0"].size) == (2, (16, 16))
    assert (found["encoder 1"].channels, found["encoder 1"].size) == (3, (8, 8))
    assert (found["encoder 2"].channels, found["encoder 2"].size) == (4, (4, 4))


def test_saved_memory_is_what_autograd_keeps() -> None:
    """Compare with the tensors that a real forward pass keeps."""
    model = network("model.channels=[4,8]")
    described = sum(stage.saved_mib for stage in describe(*shape(model), [16] * 3))
    net = build(*shape(model))
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = net(torch.randn(1, 1, 16, 16, 16))
    assert logits.shape == (1, 3, 16, 16, 16)
    assert described == pytest.approx(sum(kept.values()) / 2**20, rel=0.02)


def test_skips_are_named_where_they_are() -> None:
    found = stages(
        "model.long_skips=[concat,none,gate]",
        "model.short_skips=residual",
        "model.short_skips_in=decoder",
    )
    heads = [""] * 3  # one per level of the decoder
    short = [stage.short_skip for stage in found]
    assert short == ["none"] * 4 + ["residual"] * 3 + heads
    long = [stage.long_skip for stage in found]
    assert long == [""] * 4 + ["gate", "none", "concat"] + heads


@pytest.mark.parametrize("name", UNETS)
def test_every_preset_is_described_and_drawn(name: str, tmp_path: Path) -> None:
    model = network(f"model={name}")
    found = describe(*shape(model), [2 ** (model.levels - 1) * 2] * model.dims)
    described = sum(stage.parameters for stage in found)
    assert described == count_parameters(build_meta(*shape(model)))
    draw_network(found, name, tmp_path / "network.png")
    assert np.ptp(imread(tmp_path / "network.png")) > 0.5


MATCHED = [
    ["model.long_skips=none"],
    ["model.long_skips=add"],
    ["model.long_skips=gate"],
    ["model.long_skips=none", "model.short_skips=residual"],
    ["model.short_skips=dense", "model.growth_rate=8"],
]


@pytest.mark.parametrize("base", ["unet3d", "unet2d"])
@pytest.mark.parametrize(
    ("match_by", "attribute"), [("params", "parameters"), ("flops", "multiply_adds")]
)
@pytest.mark.parametrize("skips", MATCHED)
def test_matched_variants_are_within_one_percent(
    base: str, match_by: str, attribute: str, skips: list[str]
) -> None:
    model = network(f"model={base}", f"model.match={match_by}", *skips)
    arguments = shape(model)[1:]
    patch = [32] * model.dims
    matched = match(model, *arguments, patch)
    all_skips = ["model.long_skips=concat", "model.short_skips_in=both"]
    if "model.growth_rate=8" in skips:
        all_skips += ["model.short_skips=dense", "model.growth_rate=8"]
    else:
        all_skips += ["model.short_skips=residual"]

    def size(options: Model) -> int:
        stages = describe(options, *arguments, patch)
        return sum(getattr(stage, attribute) for stage in stages)

    assert size(network(f"model={base}", *all_skips)) == matched.reference
    assert size(matched.model) == matched.reached
    assert abs(matched.deviation) <= 0.01
    assert matched.model.match == "none"
    assert matched.model.long_skips == model.long_skips
    assert matched.model.short_skips == model.short_skips


def test_a_network_too_small_to_be_matched_says_so() -> None:
    model = network("model.channels=[1,1]", "model.long_skips=none", "model.match=params")
    with pytest.raises(
        ConfigError,
        match=r"no channels come within 5% of .* the nearest, .* are .* off: give wider",
    ):
        match(*shape(model), [8] * 3)


@pytest.mark.parametrize(("name", "arguments"), [
    ("SegResNet", {"init_filters": 8}),
    ("DynUNet", {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}),
    ("UNet", {"channels": [4, 8, 16], "strides": [2, 2]}),
    ("AttentionUnet", {"channels": [4, 8, 16], "strides": [2, 2]}),
    ("SwinUNETR", {"feature_size": 12}),
])  # fmt: skip
def test_networks_of_monai_stand_in(name: str, arguments: dict[str, object]) -> None:
    written = json.dumps(arguments).replace('"', "").replace(" ", "")
    levels = 6 if name == "SwinUNETR" else 4
    model = network(
        "model=monai",
        f"model.network={name}",
        f"model.arguments={written}",
        f"model.levels={levels}",
    )
    check_network(model)
    size = [2**levels * 2 // (1 + (levels == 6))] * 3
    net = build(*shape(model)).eval()
    assert net(torch.randn(1, 1, *size)).shape == (1, 3, *size)
    found = describe(*shape(model), size)
    assert sum(stage.multiply_adds for stage in found) > 1e6


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.network=SegResNt"], "model.network is 'SegResNt', which is no class of monai.networks.nets. Did you mean"),
        (["model.arguments={init_filter:8}"], "model.arguments.init_filter is no argument of monai.networks.nets.SegResNet"),
        (["model.arguments={in_channels:8}"], "model.arguments: in_channels follow from the data"),
        (["model.network=DynUNet"], "model.arguments: DynUNet refuses them: "),
        (["model.network=ViT"], "model.network=ViT takes no out_channels, so it cannot be used here"),
    ],
)  # fmt: skip
def test_a_network_that_monai_has_not_is_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_network(network("model=monai", *overrides))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_network_of_monai_has_no_skip_switch() -> None:
    for override in ("model.long_skips=none", "+model.long_skips=none", "model.match=params"):
        with pytest.raises(
            ConfigError,
            match=r"is a key, but not of the chosen model: take it away, or choose another",
        ):
            check("train", Train, ["model=monai", override])


def test_a_patch_that_a_network_of_monai_cannot_take() -> None:
    model = network("model=monai")
    with pytest.raises(
        ConfigError, match="model.network=SegResNet cannot take a patch of 42x42x42"
    ):
        describe(*shape(model), [42] * 3)


def test_every_kind_of_model_has_levels() -> None:
    assert [network(f"model={name}").levels for name in ("unet3d", "monai")] == [4, 4]
    assert isinstance(network(), Model)
