"""The operator table for 2D and 3D, and what a stage is made of: convolutions with or without short skips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Size = int | Sequence[int]

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT: dict[int, type[nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


def _instance_norm(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """Instance norm; on a CPU sample by sample as batch norm, which leaves channels last in memory.

    PyTorch's own reorders the whole tensor there, and the next convolution again (`benchmarks/step.py`). What compiles
    the network, or traces it as OpenVINO does, knows the norm as such and makes it faster (`benchmarks/backends.py`).
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return F.instance_norm(x, None, None, norm.weight, norm.bias, eps=norm.eps)
    samples = [
        F.batch_norm(one, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
        for one in x.split(1)
    ]
    return torch.cat(samples) if len(samples) > 1 else samples[0]  # which `cat` would copy


class InstanceNorm2d(nn.InstanceNorm2d):
    """Ulyanov 2016, of `(b, c, x, y)`."""

    def forward(self, input: Float[Tensor, "b c x y"]) -> Float[Tensor, "b c x y"]:  # noqa: A002
        """Each channel of each sample with mean 0 and deviation 1, then scaled and shifted."""
        return _instance_norm(self, input)


class InstanceNorm3d(nn.InstanceNorm3d):
    """Ulyanov 2016, of `(b, c, x, y, z)`."""

    def forward(self, input: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:  # noqa: A002
        """Each channel of each sample with mean 0 and deviation 1, then scaled and shifted."""
        return _instance_norm(self, input)


INSTANCE_NORM: dict[int, type[nn.Module]] = {2: InstanceNorm2d, 3: InstanceNorm3d}


@dataclass(frozen=True)
class ConvConfig:
    """How every convolution of a network is dressed.

    Attributes:
        dims: 2 for images, 3 for volumes.
        norm: instance (Ulyanov 2016), batch (Ioffe 2015), group (Wu 2018) with 8 channels a group, or none.
        activation: leaky_relu (slope 0.01), relu, prelu or elu.
        order: post: convolution, norm, activation; pre: norm, activation, convolution (He 2016b).
        dropout: share of channels that is dropped after a convolution in training.
        bias: whether convolutions have a bias where a norm follows, which takes it away again.
    """

    dims: int
    norm: Literal["instance", "batch", "group", "none"] = "instance"
    activation: Literal["leaky_relu", "relu", "prelu", "elu"] = "leaky_relu"
    order: Literal["post", "pre"] = "post"
    dropout: float = 0.0
    bias: bool = False

    def conv(self, inside: int, outside: int, kernel: Size, stride: Size = 1) -> nn.Module:
        """A convolution that keeps the size but for its stride."""
        sizes, steps = self.per_axis(kernel), self.per_axis(stride)
        bias = self.bias or self.norm == "none" or self.order == "pre"
        if set(sizes) == {1} and set(steps) != {1}:
            # the same numbers as with the stride in the convolution, for which oneDNN 3.11's bfloat16 backward of
            # images with 4 to 15 channels writes past its memory and kills the process
            thin = MAX_POOL[self.dims](1, steps)
            return nn.Sequential(thin, CONV[self.dims](inside, outside, sizes, bias=bias))
        padding = [size // 2 for size in sizes]
        return CONV[self.dims](inside, outside, sizes, steps, padding, bias=bias)

    def unit(
        self,
        inside: int,
        outside: int,
        kernel: Size,
        stride: Size = 1,
        activate: bool = True,
        bare: bool = False,
    ) -> nn.Sequential:
        """A convolution with norm, activation and dropout.

        `activate=False` leaves the activation to a later sum; `bare` leaves out what comes before the convolution.
        """
        conv = self.conv(inside, outside, kernel, stride)
        drop = [DROPOUT[self.dims](self.dropout)] if self.dropout else []
        if self.order == "pre":
            before = [] if bare else [self.make_norm(inside), self.make_activation()]
            return nn.Sequential(*before, conv, *drop)
        act = [self.make_activation()] if activate else []
        return nn.Sequential(conv, self.make_norm(outside), *act, *drop)

    def make_norm(self, channels: int) -> nn.Module:
        """The norm, with a learnt scale and shift per channel."""
        if self.norm == "group":
            return nn.GroupNorm(max(1, channels // 8) if channels % 8 == 0 else 1, channels)
        if self.norm == "none":
            return nn.Identity()
        return (INSTANCE_NORM if self.norm == "instance" else BATCH_NORM)[self.dims](
            channels, affine=True
        )

    def make_activation(self) -> nn.Module:
        """The activation; before a convolution without a norm it spares its input, which a skip may carry on."""
        inplace = self.order == "post" or self.norm != "none"
        makers: dict[str, Callable[[], nn.Module]] = {
            "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace),
            "relu": lambda: nn.ReLU(inplace),
            "prelu": nn.PReLU,
            "elu": lambda: nn.ELU(inplace=inplace),
        }
        return makers[self.activation]()

    def per_axis(self, size: Size) -> tuple[int, ...]:
        """One number per axis."""
        return (size,) * self.dims if isinstance(size, int) else tuple(size)


class Residual(nn.Module):
    """Adds a short skip to some layers: the input, projected where its shape changes (He 2016)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Float[Tensor, "b c_in *space"]) -> Float[Tensor, "b c *less"]:
        """The sum, activated where the order is post."""
        return self.after(self.body(x) + self.shortcut(x))


class Dense(nn.Module):
    """Every layer sees all earlier ones, side by side (Huang 2017).

    Args:
        layers: each makes some new channels of everything before it.
        given: leading channels that are not handed on: 0, or those that the first layer is given (Jegou 2017).
    """

    def __init__(self, layers: Sequence[nn.Module], given: int) -> None:
        super().__init__()
        self.layers, self.given = nn.ModuleList(layers), given

    def forward(self, x: Float[Tensor, "b c_in *space"]) -> Float[Tensor, "b c *space"]:
        """What was given and what the layers made, or the latter alone."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x[:, self.given :]


@dataclass(frozen=True)
class StageConfig:
    """What a stage is made of.

    Attributes:
        block: plain: convolutions of the stage's kernel; bottleneck: 1, kernel, 1, a quarter inside.
        blocks: how often the block is repeated.
        convs: convolutions in a plain block; layers in a dense stage.
        short_skips: none, residual (a sum around each block) or dense.
        growth: channels that each dense layer adds.
        first: share of the stage's channels that the first convolution has; the others have all.
    """

    block: Literal["plain", "bottleneck"] = "plain"
    blocks: int = 1
    convs: int = 2
    short_skips: Literal["none", "residual", "dense"] = "none"
    growth: int = 16
    first: float = 1.0


def stage(
    style: ConvConfig,
    options: StageConfig,
    inside: int,
    outside: int,
    kernel: Size,
    stride: Size = 1,
    stem: bool = False,
) -> nn.Sequential:
    """A stage from `inside` to `outside` channels, whose first convolution may stride.

    In a `stem`, which is given the image, the first convolution comes before any norm or activation.
    """
    if options.short_skips == "dense":
        return _dense_stage(style, options, inside, outside, kernel, stride, stem)
    blocks: list[nn.Module] = []
    for number in range(options.blocks):
        entering, step = (inside, stride) if number == 0 else (outside, 1)
        summed = options.short_skips == "residual"
        body = _block(style, options, entering, outside, kernel, step, summed, stem and number == 0)
        blocks.append(_residual(style, body, entering, outside, step) if summed else body)
    return nn.Sequential(*blocks)


def _block(
    style: ConvConfig,
    options: StageConfig,
    inside: int,
    outside: int,
    kernel: Size,
    stride: Size,
    summed: bool,
    stem: bool,
) -> nn.Sequential:
    inner = replace(style, dropout=0.0)
    if options.block == "bottleneck":
        quarter = max(1, outside // 4)
        shapes = [
            (inside, quarter, 1, stride),
            (quarter, quarter, kernel, 1),
            (quarter, outside, 1, 1),
        ]
        styles = [inner, inner, style]  # dropped once, from what it adds
    else:
        widths = [inside, *[max(1, round(options.first * outside))] * min(1, options.convs - 1)]
        widths += [outside] * (options.convs + 1 - len(widths))
        shapes = [
            (widths[i], widths[i + 1], kernel, stride if i == 0 else 1)
            for i in range(options.convs)
        ]
        styles = [style] * options.convs
    units = [
        one.unit(*shape, activate=not summed or i < len(shapes) - 1, bare=stem and i == 0)
        for i, (one, shape) in enumerate(zip(styles, shapes, strict=True))
    ]
    return nn.Sequential(*units)


def _residual(
    style: ConvConfig, body: nn.Module, inside: int, outside: int, stride: Size
) -> Residual:
    same = inside == outside and set(style.per_axis(stride)) == {1}
    after = nn.Identity() if style.order == "pre" else style.make_activation()
    if same:
        return Residual(body, nn.Identity(), after)
    projection = style.conv(inside, outside, 1, stride)
    shortcut = (
        projection if style.order == "pre" else nn.Sequential(projection, style.make_norm(outside))
    )
    return Residual(body, shortcut, after)


def _dense_stage(
    style: ConvConfig,
    options: StageConfig,
    inside: int,
    outside: int,
    kernel: Size,
    stride: Size,
    stem: bool,
) -> nn.Sequential:
    """Dense layers; a convolution enters them where it must stride or is given the image, and a transition leaves them.

    There is no transition where `outside` is just what the layers make, with or without what they are given.
    """
    steps: list[nn.Module] = []
    if stem or set(style.per_axis(stride)) != {1}:
        entering = max(1, round(options.first * outside))
        steps, inside = [style.unit(inside, entering, kernel, stride, bare=stem)], entering
    made = options.convs * options.growth
    layers = [
        style.unit(inside + i * options.growth, options.growth, kernel)
        for i in range(options.convs)
    ]
    steps.append(Dense(layers, given=inside if outside == made else 0))
    if outside not in (made, inside + made):
        steps.append(style.unit(inside + made, outside, 1))
    return nn.Sequential(*steps)


def downsampling(
    style: ConvConfig, how: Literal["stride", "maxpool", "transition"], channels: int, stride: Size
) -> tuple[nn.Module, Size]:
    """What stands before a stage to halve its input, and the stride that the stage's first convolution is left with."""
    if how == "stride":
        return nn.Identity(), stride
    pool = MAX_POOL[style.dims](style.per_axis(stride))
    return (pool if how == "maxpool" else nn.Sequential(style.unit(channels, channels, 1), pool)), 1


def upsampling(
    style: ConvConfig,
    how: Literal["transposed", "nearest", "linear"],
    inside: int,
    outside: int,
    kernel: Size,
    stride: Size,
    bias: bool,
) -> nn.Module:
    """A transposed convolution, or interpolation and a convolution (Odena 2016); of kernel 0, interpolation alone."""
    steps, sizes = style.per_axis(stride), style.per_axis(kernel)
    if how == "transposed":
        # wider than its stride, the kernel overlaps itself and the rim is cut off
        pairs = [(max(size, step) - step, step) for size, step in zip(sizes, steps, strict=True)]
        rim, left = [(more + 1) // 2 for more, _ in pairs], [more % 2 for more, _ in pairs]
        kernels = [more + step for more, step in pairs]
        return TRANSPOSED[style.dims](inside, outside, kernels, steps, rim, left, bias=bias)
    mode, corners = ("nearest", None) if how == "nearest" else (LINEAR[style.dims], False)
    resize = nn.Upsample(
        scale_factor=tuple(float(step) for step in steps), mode=mode, align_corners=corners
    )
    if set(sizes) == {0}:
        return resize
    return nn.Sequential(
        resize, CONV[style.dims](inside, outside, sizes, padding="same", bias=bias)
    )
