"""Scans made worse, each on its own grid, as a worse scanner would give them (Kamath 2023)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.array import GaussianSmooth, RandBiasField, RandGaussianNoise
from monai.transforms.spatial.array import Resize
from torch import Tensor

from segpipe.geometry import Grid, Located

CLEAN = 0.0  # the strength of no change


def blur_mm(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Blur with a Gaussian of this standard deviation, mm; not across the slice of an image."""
    spacing_mm = Grid.of(volume).spacing_mm
    sigmas = []
    for edge_mm, size in zip(spacing_mm, volume.shape[1:], strict=True):
        sigmas.append(strength / float(edge_mm) if size > 1 else 0.0)
    return GaussianSmooth(sigmas)(volume.as_tensor())  # type: ignore[return-value]


def noise(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Add Gaussian noise; the strength is a share of each channel's standard deviation."""
    channels = []
    for index, channel in enumerate(volume.as_tensor()):
        add = RandGaussianNoise(prob=1, std=strength * float(channel.std()), sample_std=False)
        add.set_random_state(seed + index)
        channels.append(torch.as_tensor(add(channel[None])))
    return torch.cat(channels)


def bias(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Multiply by the exponential of a random polynomial of degree 3.

    The strength is the largest possible coefficient.
    """
    field = RandBiasField(prob=1, coeff_range=(-strength, strength))
    field.set_random_state(seed)
    return torch.as_tensor(field(volume.as_tensor()))


def coarser(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Average to voxels `strength` times as wide, and interpolate back to the scan's own grid."""
    sizes = list(volume.shape[1:])
    coarse_sizes = [max(1, round(size / strength)) for size in sizes]
    small = Resize(coarse_sizes, mode="area")(volume.as_tensor())
    return torch.as_tensor(Resize(sizes, mode="trilinear", align_corners=False)(small))


def cut_off(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Set one end of the scan, this share of its longest axis, to the scan's smallest value."""
    voxels = volume.as_tensor().clone()
    axis = 1 + max(range(3), key=lambda number: volume.shape[1 + number])
    size = voxels.shape[axis]
    gone = min(size - 1, max(1, round(strength * size)))
    start = 0 if seed % 2 else size - gone
    for channel in voxels:
        channel.narrow(axis - 1, start, gone).fill_(float(channel.min()))
    return voxels


def inverted(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Mix each channel with its negative, as of another modality; at a strength of 1 all of it."""
    voxels = volume.as_tensor()
    axes = (1, 2, 3)
    negative = voxels.amax(axes, keepdim=True) + voxels.amin(axes, keepdim=True) - voxels
    return voxels.lerp(negative, strength)


@dataclass(frozen=True)
class Change:
    """A way to make a scan worse.

    Attributes:
        function: maps a scan, a strength and a seed to the voxels of the changed scan.
        label: name and unit of the strength, for pictures.
        unchanged: the strength that would leave a scan as it is.
    """

    function: Callable[[MetaTensor, float, int], Tensor]
    label: str
    unchanged: float = CLEAN


CHANGES = {
    "blur_mm": Change(blur_mm, "blur: standard deviation, mm"),
    "noise": Change(noise, "noise: share of the scan's deviation"),
    "bias": Change(bias, "bias field: largest coefficient"),
    "coarser": Change(coarser, "lost resolution: voxels times as wide", unchanged=1.0),
}

FAULTS = {  # of the scan rather than of the scanner; masks are judged by them, networks are not
    "cut_off": Change(cut_off, "cut off: share of the scan"),
    "inverted": Change(inverted, "another contrast: share of the negative"),
}


def degrade(volume: Located, change: str, strength: float, seed: int) -> Located:
    """Return a scan `(C, X, Y, Z)` made worse, on its own grid.

    Args:
        volume: the scan.
        change: a key of `CHANGES` or `FAULTS`; any where the strength is 0.
        strength: the strength of the change; 0 returns the scan itself.
        seed: the seed of noise and bias fields, and of which end is cut off.
    """
    if strength == CLEAN:
        return volume
    affine = torch.as_tensor(volume.affine)
    scan = MetaTensor(volume.as_tensor().float(), affine)
    changed = (CHANGES | FAULTS)[change].function(scan, strength, seed)
    return MetaTensor(changed.as_subclass(Tensor), affine)
