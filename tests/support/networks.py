"""Small networks."""

from dataclasses import replace

import torch

from segpipe.nets.blocks import StageConfig
from segpipe.nets.conv import ConvConfig
from segpipe.nets.unet import UNet

CHANNELS = [3, 4, 5]


def network(
    dims: int,
    long: tuple[str, ...] = ("concat", "concat"),
    short: tuple[str, str] = ("none", "both"),
    down: str = "stride",
    up: str = "transposed",
    seed: int = 0,
    style: ConvConfig | None = None,
    kernels: list[int | list[int]] | None = None,
    strides: list[int | list[int]] | None = None,
    block: str = "plain",
    blocks: int = 1,
    **more: object,
) -> UNet:
    """Build a small U-Net of float64 with 2 image channels and 3 labels.

    Args:
        dims: 2 or 3.
        long: the long skip of each level.
        short: the short skip, and where it is: encoder, decoder or both.
        down: how each level is downsampled.
        up: how each level is upsampled.
        seed: of the weights.
        style: of the convolutions.
        kernels: per level.
        strides: per downsampling.
        block: of every stage.
        blocks: of every stage.
        more: further arguments of `UNet`.
    """
    torch.manual_seed(seed)
    skip, where = short
    with_skips = StageConfig(short_skips=skip, growth=2, blocks=blocks, block=block)
    without = replace(with_skips, short_skips="none")
    kernels = kernels or [3, 3, 3]
    network = UNet(
        2,
        3,
        CHANNELS,
        CHANNELS[:2],
        strides or [2, 2],
        kernels,
        long,
        style or ConvConfig(dims),
        [with_skips if where in ("encoder", "both") else without] * 3,
        [with_skips if where in ("decoder", "both") else without] * 2,
        down=[down] * 2,  # type: ignore[list-item]
        up=up,  # type: ignore[arg-type]
        up_kernels=[0, 0] if up == "transposed" else kernels[:2],
        **more,  # type: ignore[arg-type]
    )
    return network.double()
