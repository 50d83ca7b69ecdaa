"""The networks of the literature: their numbers, and that each is a config file and nothing else."""

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from support.config import network
from torch import nn

from segpipe.config.compose import CONF
from segpipe.nets.build import build, build_meta

PRESETS = sorted(file.stem for file in (CONF / "model").glob("*.yaml") if file.stem != "monai")
NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)


def preset(name: str, in_channels: int, labels: int, *overrides: str) -> nn.Module:
    model = network(f"model={name}", *overrides)
    strides = [[2] * model.dims] * (model.levels - 1)
    kernels = [[3] * model.dims] * model.levels
    return build(model, in_channels, labels, strides, kernels)


def parameters(net: nn.Module, norms: bool = True) -> int:
    parts = [part for part in net.modules() if norms or not isinstance(part, NORMS)]
    return sum(weight.numel() for part in parts for weight in part.parameters(recurse=False))


def test_unet2d_2015_has_ronnebergers_parameters() -> None:
    assert parameters(preset("unet2d_2015", 1, 2)) == 31_030_658
    assert parameters(preset("unet2d_2015", 1, 2, "model.long_skips=none")) == 27_897_218


def test_unet3d_2016_has_ciceks_parameters() -> None:
    """As the paper counts: biases of convolutions, but not the scale and shift of batch norm."""
    assert parameters(preset("unet3d_2016", 3, 3), norms=False) == 19_069_955
    assert (
        parameters(preset("unet3d_2016", 3, 3, "model.long_skips=none"), norms=False) == 16_747_523
    )


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ([], 11_470_369),
        (["model.long_skips=none"], 11_586_017),
        (["model.short_skips=none"], 10_776_225),
        (["model.long_skips=none", "model.short_skips=none"], 10_198_721),
    ],
)
def test_resunet_2016_has_drozdzals_parameters(overrides: list[str], count: int) -> None:
    """With long and short skips, either, or none: by the switches alone."""
    assert parameters(preset("resunet_2016", 1, 1, *overrides)) == count


def test_tiramisu103_2017_has_jegous_parameters() -> None:
    """About 9.4 million for 11 labels, running statistics of batch norms included."""
    net = preset("tiramisu103_2017", 3, 11)
    statistics = sum(buffer.numel() for buffer in net.buffers() if buffer.ndim)
    assert (parameters(net), parameters(net) + statistics) == (9_322_091, 9_425_163)


def test_nnunet_has_the_parameters_of_monais() -> None:
    """MONAI's has no biases, and supervises all but the two coarsest levels."""
    ours = preset(
        "nnunet",
        1,
        3,
        "model.conv_bias=false",
        "model.up_bias=false",
        "model.deep_supervision=false",
    )
    theirs = DynUNet(3, 1, 3, [3] * 6, [1, 2, 2, 2, 2, 2], [2] * 5, [32, 64, 128, 256, 320, 320])
    assert parameters(ours) == parameters(theirs)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resenc_2024", 102_349_770),
        ("resenc_2024_l", 102_349_770),
        ("resenc_2024_xl", 141_889_612),
    ],
)
def test_resenc_2024_has_nnunets_parameters(name: str, count: int) -> None:
    """As nnU-Net 2.8.1 builds `ResidualEncoderUNet` for 1 channel and 2 labels."""
    model = network(f"model={name}")
    kernels = [[3] * 3] * model.levels
    assert parameters(build_meta(model, 1, 2, [[2] * 3] * (model.levels - 1), kernels)) == count


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_mask_of_the_images_size(name: str) -> None:
    model = network(f"model={name}")
    overrides = []
    if not name.startswith("tiramisu"):  # its channels follow from its growth rate
        narrow = [max(2, channels // 16) for channels in model.channels]
        overrides.append(f"model.channels={narrow}".replace(" ", ""))
    net = preset(name, 2, 3, *overrides).eval()
    size = [2**model.levels] * model.dims
    assert net(torch.randn(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_where_it_is_from(name: str) -> None:
    assert (CONF / "model" / f"{name}.yaml").read_text().startswith("# ")
