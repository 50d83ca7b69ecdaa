"""The operators of 2D and 3D, and a convolution with its norm, activation and dropout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Size = int | Sequence[int]

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
DROPOUT: dict[int, type[nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
GROUP_CHANNELS = 8  # channels per group of a group norm
LEAKY_SLOPE = 0.01


def _instance_norm(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """Normalise each channel of each sample; on a CPU as a batch norm of one sample at a time.

    PyTorch's instance norm reorders the whole tensor on a CPU, and the next convolution reorders
    it again; batch norm keeps channels last in memory (`benchmarks/step.py`). Compilers and
    tracers, such as OpenVINO's, recognise and fuse the instance norm itself
    (`benchmarks/backends.py`).
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if traced or x.device.type != "cpu":
        return F.instance_norm(x, None, None, norm.weight, norm.bias, eps=norm.eps)
    samples = []
    for sample in x.split(1):
        normalised = F.batch_norm(
            sample, None, None, norm.weight, norm.bias, training=True, momentum=0.0, eps=norm.eps
        )
        samples.append(normalised)
    if len(samples) == 1:
        return samples[0]  # `cat` would copy it
    return torch.cat(samples)


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm of images (Ulyanov 2016)."""

    def forward(self, input: Float[Tensor, "b c x y"]) -> Float[Tensor, "b c x y"]:  # noqa: A002
        """Return each channel of each sample with mean 0 and variance 1, scaled and shifted."""
        return _instance_norm(self, input)


class InstanceNorm3d(nn.InstanceNorm3d):
    """Instance norm of volumes (Ulyanov 2016)."""

    def forward(self, input: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:  # noqa: A002
        """Return each channel of each sample with mean 0 and variance 1, scaled and shifted."""
        return _instance_norm(self, input)


INSTANCE_NORM: dict[int, type[nn.Module]] = {2: InstanceNorm2d, 3: InstanceNorm3d}


@dataclass(frozen=True)
class ConvConfig:
    """The settings that all convolutions of a network share.

    Attributes:
        dims: 2 for images, 3 for volumes.
        norm: instance (Ulyanov 2016), batch (Ioffe 2015), group (Wu 2018; 8 channels per group)
            or none.
        activation: leaky_relu (slope 0.01), relu, prelu or elu.
        order: post: convolution, norm, activation; pre: norm, activation, convolution (He 2016b).
        dropout: probability that a channel is dropped after a convolution in training.
        bias: whether convolutions have a bias even where a norm, which cancels it, follows.
    """

    dims: int
    norm: Literal["instance", "batch", "group", "none"] = "instance"
    activation: Literal["leaky_relu", "relu", "prelu", "elu"] = "leaky_relu"
    order: Literal["post", "pre"] = "post"
    dropout: float = 0.0
    bias: bool = False

    def conv(
        self, in_channels: int, out_channels: int, kernel: Size, stride: Size = 1
    ) -> nn.Module:
        """Return a convolution whose output has the size of its input divided by the stride."""
        kernels = self.per_axis(kernel)
        strides = self.per_axis(stride)
        bias = self.bias or self.norm == "none" or self.order == "pre"
        if set(kernels) == {1} and set(strides) != {1}:
            # The same numbers as a strided convolution, for which the bfloat16 backward pass of
            # oneDNN 3.11 on 4 to 15 channels writes past its memory and ends the process.
            subsample = MAX_POOL[self.dims](1, strides)
            pointwise = CONV[self.dims](in_channels, out_channels, kernels, bias=bias)
            return nn.Sequential(subsample, pointwise)
        padding = [size // 2 for size in kernels]
        return CONV[self.dims](in_channels, out_channels, kernels, strides, padding, bias=bias)

    def unit(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Size,
        stride: Size = 1,
        activate: bool = True,
        bare: bool = False,
    ) -> nn.Sequential:
        """Return a convolution with its norm, activation and dropout.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel: the size of the kernel in voxels, for all axes or along each.
            stride: the stride in voxels, for all axes or along each.
            activate: whether the activation is part of the unit, in post order; False leaves it to
                a later sum.
            bare: whether norm and activation are left out, in pre order.
        """
        layers: list[nn.Module] = []
        if self.order == "pre" and not bare:
            layers += [self.make_norm(in_channels), self.make_activation()]
        layers.append(self.conv(in_channels, out_channels, kernel, stride))
        if self.order == "post":
            layers.append(self.make_norm(out_channels))
            if activate:
                layers.append(self.make_activation())
        if self.dropout:
            layers.append(DROPOUT[self.dims](self.dropout))
        return nn.Sequential(*layers)

    def make_norm(self, channels: int) -> nn.Module:
        """Return the norm of this many channels, with a learnt scale and shift for each."""
        if self.norm == "none":
            return nn.Identity()
        if self.norm == "group":
            divisible = channels % GROUP_CHANNELS == 0
            return nn.GroupNorm(channels // GROUP_CHANNELS if divisible else 1, channels)
        norms = INSTANCE_NORM if self.norm == "instance" else BATCH_NORM
        return norms[self.dims](channels, affine=True)

    def make_activation(self) -> nn.Module:
        """Return the activation.

        It works in place unless it comes first in a unit: a skip may still need that input.
        """
        inplace = self.order == "post" or self.norm != "none"
        factories: dict[str, Callable[[], nn.Module]] = {
            "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace),
            "relu": lambda: nn.ReLU(inplace),
            "prelu": nn.PReLU,
            "elu": lambda: nn.ELU(inplace=inplace),
        }
        return factories[self.activation]()

    def per_axis(self, size: Size) -> tuple[int, ...]:
        """Return one number per axis."""
        return (size,) * self.dims if isinstance(size, int) else tuple(size)
