"""Small networks."""

from dataclasses import replace

import torch

from segpipe.nets.blocks import ConvConfig, StageConfig
from segpipe.nets.unet import UNet


def network(
    dims: int,
    long: tuple[str, ...] = ("concat", "concat"),
    short: tuple[str, str] = ("none", "both"),
    down: str = "stride",
    up: str = "transposed",
    seed: int = 0,
    style: ConvConfig | None = None,
    kernels: list[int | list[int]] | None = None,
    **more: object,
) -> UNet:
    torch.manual_seed(seed)
    on = StageConfig(
        short_skips=short[0],
        growth=2,
        blocks=int(more.pop("blocks", 1)),
        block=more.pop("block", "plain"),
    )  # type: ignore[arg-type, call-overload]
    off = replace(on, short_skips="none")
    encoder, decoder = (
        on if short[1] in (part, "both") else off for part in ("encoder", "decoder")
    )
    kernels = kernels or [3, 3, 3]
    up_kernels = [0, 0] if up == "transposed" else kernels[:2]
    net = UNet(2, 3, CHANNELS, CHANNELS[:2], more.pop("strides", [2, 2]), kernels, long, style or ConvConfig(dims),  # type: ignore[arg-type]
               [encoder] * 3, [decoder] * 2, down=[down] * 2, up=up, up_kernels=up_kernels, **more)  # type: ignore[arg-type]  # fmt: skip
    return net.double()
