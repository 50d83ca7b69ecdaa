"""Downsampling and upsampling between the levels of a network."""

from typing import Literal

from torch import nn

from segpipe.nets.conv import CONV, MAX_POOL, TRANSPOSED, ConvConfig, Size

LINEAR = {2: "bilinear", 3: "trilinear"}


def downsampling(
    config: ConvConfig,
    method: Literal["stride", "maxpool", "transition"],
    channels: int,
    stride: Size,
) -> tuple[nn.Module, Size]:
    """Return what stands in front of a stage, and the stride of the stage's first convolution.

    Args:
        config: the network's convolutions.
        method: stride: the stage's first convolution strides; maxpool; transition: a 1-wide
            convolution, then max pooling (Jegou 2017).
        channels: the channels of the input, which are kept.
        stride: the stride, for all axes or along each.
    """
    if method == "stride":
        return nn.Identity(), stride
    pool = MAX_POOL[config.dims](config.per_axis(stride))
    if method == "maxpool":
        return pool, 1
    return nn.Sequential(config.unit(channels, channels, 1), pool), 1


def upsampling(
    config: ConvConfig,
    method: Literal["transposed", "nearest", "linear"],
    in_channels: int,
    out_channels: int,
    kernel: Size,
    stride: Size,
    bias: bool,
) -> nn.Module:
    """Return a transposed convolution, or interpolation and a convolution (Odena 2016).

    Args:
        config: the network's convolutions.
        method: transposed convolution, or the interpolation.
        in_channels: channels of the coarser level.
        out_channels: channels of the result.
        kernel: the size of the kernel in voxels; 0 with an interpolation leaves the convolution
            out. A transposed convolution's kernel is at least its stride.
        stride: the stride, for all axes or along each.
        bias: whether the convolution has a bias.
    """
    strides = config.per_axis(stride)
    kernels = config.per_axis(kernel)
    if method == "transposed":
        return _transposed(config.dims, in_channels, out_channels, kernels, strides, bias)
    mode = "nearest" if method == "nearest" else LINEAR[config.dims]
    align_corners = None if method == "nearest" else False
    scale = tuple(map(float, strides))
    resize = nn.Upsample(scale_factor=scale, mode=mode, align_corners=align_corners)
    if set(kernels) == {0}:
        return resize
    conv = CONV[config.dims](in_channels, out_channels, kernels, padding="same", bias=bias)
    return nn.Sequential(resize, conv)


def _transposed(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernels: tuple[int, ...],
    strides: tuple[int, ...],
    bias: bool,
) -> nn.Module:
    """Return a transposed convolution whose output is exactly `stride` times its input.

    A kernel wider than its stride overlaps itself, and the overlap at the border is cut off.
    """
    sizes = []
    padding = []
    output_padding = []
    for kernel, stride in zip(kernels, strides, strict=True):
        overlap = max(kernel, stride) - stride
        sizes.append(stride + overlap)
        padding.append((overlap + 1) // 2)
        output_padding.append(overlap % 2)
    return TRANSPOSED[dims](
        in_channels, out_channels, sizes, strides, padding, output_padding, bias=bias
    )
