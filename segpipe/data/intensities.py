"""Intensities of scans: outliers that spoil them, and their way to a common scale."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segpipe.config.train import Normalise
from segpipe.plan import Plan

DWARFED = 1e6  # times the range of the usual voxels: the network would see one grey
SAMPLED = 2**20  # voxels that stand for a channel


def find_outlier(channel: np.ndarray) -> str | None:
    """Return a message's part on voxels that dwarf all others of a channel; None if there are none.

    They lie more than `DWARFED` times the range of the usual voxels away from the median, or beyond
    single precision. Usual is the middle 90 % of the voxels that are not background.
    """
    low = float(channel.min())
    high = float(channel.max())
    farthest = high if abs(high) > abs(low) else low
    if abs(farthest) > float(np.finfo(np.float32).max):
        return f"{farthest:g}, beyond single precision"
    sample = channel.ravel()[:: max(1, channel.size // SAMPLED)]
    middle = float(np.median(sample))
    others = sample[sample != middle]
    if not others.size:
        return None
    bottom, top = np.percentile(others, (5, 95)).tolist()
    if top > bottom and max(high - middle, middle - low) > DWARFED * (top - bottom):
        return (
            f"{farthest:g}, where most voxels lie between {bottom:g} and {top:g}: normalised, "
            "these would all look the same"
        )
    return None


def normalise(
    image: Float[Tensor, "c x y z"], plan: Plan, inside: Bool[Tensor, "x y z"] | None = None
) -> Float[Tensor, "c x y z"]:
    """Return the intensities on a common scale, channel by channel.

    `zscore`: mean 0 and standard deviation 1 over the scan. `zscore_nonzero`: the same over its
    voxels that are not 0, which stay 0, for scans that were cut out of their background. `ct`:
    clipped to the 0.5 and 99.5 percentiles of the training cases' labelled voxels, then their mean
    and standard deviation (Isensee 2021), since Hounsfield units mean the same in every scan.
    `rescale`: from 0 at the scan's minimum to 1 at its maximum. `rgb`: divided by 255.

    Args:
        image: the voxels.
        plan: the plan of the network.
        inside: the voxels over which `zscore_nonzero` is; None: those of the channel that are not
            0.
    """
    channels = []
    for channel, method, foreground in zip(image, plan.normalise, plan.foreground, strict=True):
        channels.append(_normalise_channel(channel, method, foreground, inside))
    return torch.stack(channels)


def _normalise_channel(
    channel: Tensor,
    method: Normalise,
    foreground: tuple[float, float, float, float],
    inside: Tensor | None,
) -> Tensor:
    if method == "none":
        return channel
    if method == "zscore":
        return _zscore(channel)
    if method == "rescale":
        low = channel.min()
        return (channel - low) / (channel.max() - low).clamp(min=1e-6)
    if method == "rgb":
        return channel / 255
    if method == "zscore_nonzero":
        inside = channel != 0 if inside is None else inside
        return channel.masked_scatter(inside, _zscore(channel[inside])) if inside.any() else channel
    low, high, mean, deviation = foreground
    return channel.clamp(low, high).sub_(mean).div_(max(deviation, 1e-6))


def _zscore(voxels: Tensor) -> Tensor:
    mean = voxels.mean(dtype=torch.float64).float()
    deviation = voxels.double().std(correction=0).float()
    smallest = 1e-6 * (1 + float(mean.abs()))  # a constant image must not be divided by 0
    return (voxels - mean) / deviation.clamp(min=smallest)
