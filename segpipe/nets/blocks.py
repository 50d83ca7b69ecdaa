"""The stages of a network: blocks of convolutions, with or without short skips.

A short skip and a block are registered functions, so that a new one needs no other change:

    @SHORT_SKIPS.register("residual", help="...", colour="#0072B2")
    def residual_stage(spec: StageSpec) -> nn.Sequential: ...

    @BLOCKS.register("plain", help="...")
    def plain_block(spec: StageSpec, activate: bool) -> nn.Sequential: ...

A short skip builds a whole stage: it maps `(B, in_channels, *spatial)` to
`(B, out_channels, *spatial / stride)`. `spec.per_block()` gives a `StageSpec` for each block of the
stage, and `build_block` builds that block with the function registered for `spec.options.block`.

A block builds its convolutions in a row. With `activate=False` the last of them leaves its
activation to a sum that follows. In a stem (`spec.stem`) the first convolution is `bare`: the image
meets it before any norm or activation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.conv import AVG_POOL, CONV, ConvConfig, Size
from segpipe.registry import BLOCKS, SHORT_SKIPS

__all__ = ["CONV", "ConvConfig", "Dense", "Residual", "Size", "StageConfig", "StageSpec", "stage"]


@dataclass(frozen=True)
class StageConfig:
    """The options of a stage.

    Attributes:
        block: a registered block.
        blocks: number of times that the block is repeated.
        convs: convolutions in a plain block; layers in a dense stage.
        short_skips: a registered short skip.
        growth: channels that each dense layer adds.
        first: share of the stage's channels that the first convolution has; the others have all.
    """

    block: str = "plain"
    blocks: int = 1
    convs: int = 2
    short_skips: str = "none"
    growth: int = 16
    first: float = 1.0


@dataclass(frozen=True)
class StageSpec:
    """What a short skip builds a stage from, or a block its convolutions.

    Attributes:
        config: the network's convolutions.
        options: the stage's options.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: the size of the kernel in voxels, for all axes or along each.
        stride: the stride of the first convolution, for all axes or along each.
        stem: whether the input is the image itself.
    """

    config: ConvConfig
    options: StageConfig
    in_channels: int
    out_channels: int
    kernel: Size
    stride: Size = 1
    stem: bool = False

    @property
    def strided(self) -> bool:
        """Whether the output is smaller than the input."""
        return set(self.config.per_axis(self.stride)) != {1}

    @property
    def first_channels(self) -> int:
        """Channels of the first convolution."""
        return max(1, round(self.options.first * self.out_channels))

    def per_block(self) -> "list[StageSpec]":
        """Return the spec of each block of the stage; only the first strides or is a stem."""
        later = replace(self, in_channels=self.out_channels, stride=1, stem=False)
        specs: list[StageSpec] = [self]
        specs += [later] * (self.options.blocks - 1)
        return specs


def stage(
    config: ConvConfig,
    options: StageConfig,
    in_channels: int,
    out_channels: int,
    kernel: Size,
    stride: Size = 1,
    stem: bool = False,
) -> nn.Sequential:
    """Return a stage; see `StageSpec` for the arguments.

    Raises:
        ConfigError: if no short skip or block of these names is registered.
    """
    spec = StageSpec(config, options, in_channels, out_channels, kernel, stride, stem)
    return SHORT_SKIPS[options.short_skips](spec)


def build_block(spec: StageSpec, activate: bool = True) -> nn.Sequential:
    """Return one block, built by the function registered for `spec.options.block`."""
    return BLOCKS[spec.options.block](spec, activate)


@BLOCKS.register("plain", help="convolutions of the stage's kernel")
def plain_block(spec: StageSpec, activate: bool) -> nn.Sequential:
    """Return `options.convs` convolutions, the first with its own share of the channels."""
    count = spec.options.convs
    widths = [spec.in_channels] + [spec.out_channels] * count
    if count > 1:
        widths[1] = spec.first_channels
    units = []
    for i in range(count):
        unit = spec.config.unit(
            widths[i],
            widths[i + 1],
            spec.kernel,
            spec.stride if i == 0 else 1,
            activate=activate or i < count - 1,
            bare=spec.stem and i == 0,
        )
        units.append(unit)
    return nn.Sequential(*units)


@BLOCKS.register("bottleneck", help="1, kernel, 1 wide, with a quarter of the channels inside")
def bottleneck_block(spec: StageSpec, activate: bool) -> nn.Sequential:
    """Return the three convolutions of a bottleneck (He 2016)."""
    inner = max(1, spec.out_channels // 4)
    undropped = replace(spec.config, dropout=0.0)  # dropout is applied once, to what is added
    return nn.Sequential(
        undropped.unit(spec.in_channels, inner, 1, spec.stride, bare=spec.stem),
        undropped.unit(inner, inner, spec.kernel),
        spec.config.unit(inner, spec.out_channels, 1, activate=activate),
    )


@SHORT_SKIPS.register("none", help="no skip inside a stage", colour="#999999")
def stage_without_skips(spec: StageSpec) -> nn.Sequential:
    """Return the blocks in a row."""
    return nn.Sequential(*map(build_block, spec.per_block()))


@SHORT_SKIPS.register("residual", help="a sum around each block", colour="#0072B2")
def residual_stage(spec: StageSpec) -> nn.Sequential:
    """Return the blocks in a row, each with the sum of its input and output (He 2016)."""
    return nn.Sequential(*map(_residual_block, spec.per_block()))


def _residual_block(spec: StageSpec) -> "Residual":
    body = build_block(spec, activate=False)
    pre = spec.config.order == "pre"
    activation = nn.Identity() if pre else spec.config.make_activation()
    if spec.in_channels == spec.out_channels and not spec.strided:
        return Residual(body, nn.Identity(), activation)
    projection = spec.config.conv(spec.in_channels, spec.out_channels, 1, spec.stride)
    if not pre:
        projection = nn.Sequential(projection, spec.config.make_norm(spec.out_channels))
    return Residual(body, projection, activation)


@SHORT_SKIPS.register(
    "residual_d", help="a sum around each block, past average pooling (nnU-Net)", colour="#D55E00"
)
def residual_d_stage(spec: StageSpec) -> nn.Sequential:
    """Return the blocks in a row with sums as in ResNet-D (He 2018), as nnU-Net builds them.

    A stem begins with one convolution of its own, before its blocks. Where a block strides, its
    shortcut is average pooling; where channels change, a 1-wide convolution without bias and a norm
    follow.
    """
    parts: list[nn.Module] = []
    first = spec
    if spec.stem:
        parts.append(spec.config.unit(spec.in_channels, spec.out_channels, spec.kernel, bare=True))
        first = replace(spec, in_channels=spec.out_channels, stem=False)
    parts += map(_residual_d_block, first.per_block())
    return nn.Sequential(*parts)


def _residual_d_block(spec: StageSpec) -> "Residual":
    config = spec.config
    shortcut: list[nn.Module] = []
    if spec.strided:
        shortcut.append(AVG_POOL[config.dims](config.per_axis(spec.stride)))
    if spec.in_channels != spec.out_channels:
        shortcut.append(CONV[config.dims](spec.in_channels, spec.out_channels, 1, bias=False))
        shortcut.append(config.make_norm(spec.out_channels))
    after = nn.Identity() if config.order == "pre" else config.make_activation()
    return Residual(build_block(spec, activate=False), nn.Sequential(*shortcut), after)


class Residual(nn.Module):
    """A block with a short skip around it (He 2016).

    Args:
        body: the block.
        shortcut: the identity, or a projection where the shape changes.
        after: applied to the sum: the activation in post order, the identity in pre order.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.after = after

    def forward(self, x: Float[Tensor, "b c_in *space"]) -> Float[Tensor, "b c *less"]:
        """Return the sum of the block's output and its input."""
        return self.after(self.body(x) + self.shortcut(x))


@SHORT_SKIPS.register("dense", help="every layer concatenated to all later ones", colour="#009E73")
def dense_stage(spec: StageSpec) -> nn.Sequential:
    """Return a stage of dense layers (Huang 2017), `options.convs` of `options.growth` channels.

    A convolution comes first where the stage strides or is a stem. A 1-wide convolution comes last,
    unless `out_channels` is what the layers make, with or without what enters them.
    """
    config = spec.config
    growth = spec.options.growth
    parts: list[nn.Module] = []
    channels = spec.in_channels
    if spec.stem or spec.strided:
        unit = config.unit(channels, spec.first_channels, spec.kernel, spec.stride, bare=spec.stem)
        parts.append(unit)
        channels = spec.first_channels
    made = spec.options.convs * growth
    layers = []
    for before in range(0, made, growth):
        layers.append(config.unit(channels + before, growth, spec.kernel))
    parts.append(Dense(layers, channels if spec.out_channels == made else 0))
    if spec.out_channels not in (made, channels + made):
        parts.append(config.unit(channels + made, spec.out_channels, 1))
    return nn.Sequential(*parts)


class Dense(nn.Module):
    """Layers that each see the input and the output of all earlier ones (Huang 2017).

    Args:
        layers: each maps everything before it to some new channels.
        dropped: leading channels that are not handed on: 0, or those of the input (Jegou 2017).
    """

    def __init__(self, layers: Sequence[nn.Module], dropped: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropped = dropped

    def forward(self, x: Float[Tensor, "b c_in *space"]) -> Float[Tensor, "b c *space"]:
        """Return the input and the output of all layers side by side, or the latter alone."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x[:, self.dropped :]
