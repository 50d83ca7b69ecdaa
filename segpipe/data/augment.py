"""The random half of training: where a patch is cut, and what is changed in it.

Spatial changes move image and label together; intensity changes touch the image alone. Strengths are those of nnU-Net
(Isensee 2021) where `conf/augment/*.yaml` does not say otherwise. The transforms are MONAI's but for four, which took
most of the time of all: `cut.py`, `warp.py`, `RandNoised` and `RandBlurd` (`benchmarks/augment.py`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import set_track_meta
from monai.networks.layers.convutils import gaussian_1d
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
)
from monai.transforms.spatial.dictionary import RandFlipd, RandSimulateLowResolutiond
from monai.transforms.transform import MapTransform, Randomizable, RandomizableTransform
from torch import Tensor

from segpipe.config.train import Augment
from segpipe.data.patch_sampler import PatchSampler
from segpipe.data.warp import BOTH, RandWarpd
from segpipe.plan import ANISOTROPIC, Plan
from segpipe.registry import AUGMENTATIONS

MARGIN = (
    1.15  # a patch is cut this much larger before it is rotated, so that its corners are anatomy
)


def make_sampler(plan: Plan, foreground: float, augment: Augment) -> PatchSampler:
    """Prepared case -> patch, a little larger than the plan's where `changing` will move it.

    A share `foreground` of the patches is centred on a labelled voxel, every label equally often.
    """
    flat = _in_plane(plan)
    grown = [
        math.ceil(voxels * MARGIN) if axis in flat else voxels
        for axis, voxels in enumerate(plan.patch)
    ]
    cut = grown if _moves(augment) else plan.patch
    labels = len(plan.labels) - 1
    return PatchSampler(cut, [1 - foreground] + [foreground / labels] * labels)


class Augmentation:
    """Transforms after one another, all drawing from one stream of chance: a patch is what its seed makes of it.

    What MONAI's `Compose` does, without the metadata and the lazy transforms.
    """

    def __init__(self, transforms: Sequence[MapTransform]) -> None:
        self.transforms, self.rng = transforms, np.random.RandomState(0)
        for transform in transforms:
            if isinstance(transform, Randomizable):
                transform.set_random_state(state=self.rng)

    def __call__(self, patch: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """`image` and `label` of a patch, augmented on the device where they are."""
        self.rng.seed(seed)
        changed: Any = patch
        set_track_meta(
            False
        )  # a patch needs no affine, and keeping one costs as much as the augmentation
        try:
            for transform in self.transforms:
                changed = transform(changed)
        finally:
            set_track_meta(True)
        return {"image": changed["image"], "label": changed["label"].to(torch.uint8)}


def make_augmentation(plan: Plan, augment: Augment) -> Augmentation:
    """What was cut -> augmented patch: `image` `(c, *patch)` and `label` `(1, *patch)`, on their own device."""
    steps: list[MapTransform] = [_warp(plan, augment)] if _moves(augment) else []
    steps += [RandFlipd(BOTH, 0.5, axis) for axis in augment.mirror_axes if plan.patch[axis] > 1]
    for name in AUGMENTATIONS:
        steps.append(AUGMENTATIONS[name](getattr(augment, name, 0.0)))
    return Augmentation(steps)


def _moves(augment: Augment) -> bool:
    return augment.affine > 0 or augment.elastic > 0


def _in_plane(plan: Plan) -> list[int]:
    """The axes along which a patch may be turned and scaled: not across slices, nor along a coarse axis.

    A turn out of the plane of voxels of 1x1x5 mm would mix what lies 5 mm apart with what lies 1 mm apart.
    """
    finest = min((mm for mm in plan.spacing_mm if mm is not None), default=1.0)
    return [
        axis
        for axis, (voxels, mm) in enumerate(zip(plan.patch, plan.spacing_mm, strict=True))
        if voxels > 1 and (mm or finest) <= ANISOTROPIC * finest
    ]


def _warp(plan: Plan, augment: Augment) -> RandWarpd:
    plane = _in_plane(plan)
    angle = math.radians(augment.rotate_deg)
    # what has a plane is only turned within it, that is about the axis that is not in it
    angles = [
        angle if len(plane) == 3 or (len(plane) == 2 and axis not in plane) else 0.0
        for axis in range(3)
    ]
    sizes = [augment.scale if axis in plane else 0.0 for axis in range(3)]
    return RandWarpd(plan.patch, augment.affine, angles, sizes, augment.elastic, plane)


@AUGMENTATIONS.register("noise", help="Gaussian noise")
def noise(probability: float) -> MapTransform:
    """Add noise whose standard deviation is drawn from 0 to 0.3."""
    return RandNoised(probability, 0.3)


@AUGMENTATIONS.register("blur", help="Gaussian blur")
def blur(probability: float) -> MapTransform:
    """Blur with a standard deviation drawn from 0.5 to 1 voxels, for each axis anew."""
    return RandBlurd(probability, (0.5, 1.0))


@AUGMENTATIONS.register("brightness", help="a multiplied brightness")
def brightness(probability: float) -> MapTransform:
    """Multiply by a factor drawn from 0.75 to 1.25."""
    return RandScaleIntensityd("image", 0.25, prob=probability)


@AUGMENTATIONS.register("contrast", help="a stretched or squeezed contrast")
def contrast(probability: float) -> MapTransform:
    """Multiply the distance from the mean by 0.75 to 1.25; the range of values stays the same."""
    return RandScaleIntensityFixedMeand(
        "image", (-0.25, 0.25), prob=probability, preserve_range=True
    )


@AUGMENTATIONS.register("low_resolution", help="a simulated coarser scan")
def low_resolution(probability: float) -> MapTransform:
    """Sample at 0.5 to 1 times the resolution, and interpolate back."""
    return RandSimulateLowResolutiond("image", prob=probability, zoom_range=(0.5, 1.0))


@AUGMENTATIONS.register("gamma", help="a gamma curve")
def gamma(probability: float) -> MapTransform:
    """Raise to a power drawn from 0.7 to 1.5; mean and deviation stay the same."""
    return RandAdjustContrastd("image", prob=probability, gamma=(0.7, 1.5), retain_stats=True)


class RandNoised(RandomizableTransform, MapTransform):
    """Gaussian noise on `image`, drawn where that is; MONAI draws it in float64 on the CPU, which takes far longer.

    Args:
        prob: of any noise.
        largest: its standard deviation is drawn from 0 to this.
    """

    def __init__(self, prob: float, largest: float) -> None:
        MapTransform.__init__(self, "image")
        RandomizableTransform.__init__(self, prob)
        self.largest = largest

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The patch with noise, or without."""
        image: Tensor = data["image"]
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        rng = torch.Generator(image.device).manual_seed(int(self.R.randint(2**31)))
        noise = torch.randn(image.shape, generator=rng, device=image.device)
        return {**data, "image": noise.mul_(self.R.uniform(0, self.largest)).add_(image)}


class RandBlurd(RandomizableTransform, MapTransform):
    """Gaussian blur of `image`, by its own deviation along each axis; a product of matrices in place of convolutions.

    Args:
        prob: of any blur.
        deviation: its smallest and largest, in voxels.
    """

    def __init__(self, prob: float, deviation: tuple[float, float]) -> None:
        MapTransform.__init__(self, "image")
        RandomizableTransform.__init__(self, prob)
        self.deviation = deviation

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The patch blurred, or as it is."""
        image: Tensor = data["image"]
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        x, y, z = (
            _blurring(self.R.uniform(*self.deviation), edge).to(image.device)
            for edge in image.shape[1:]
        )
        image = y @ (image @ z)
        image = (x @ image.flatten(2)).view_as(image)
        return {**data, "image": image}


def _blurring(deviation: float, edge: int) -> Tensor:
    """What each voxel along an axis gives to each, symmetric: `(edge, edge)`; an axis of one voxel is left alone."""
    if edge == 1:
        return torch.ones(1, 1)
    bell = gaussian_1d(torch.tensor(deviation), truncated=4.0, approx="erf")
    reach = len(bell) // 2
    away = torch.arange(edge)[:, None] - torch.arange(edge) + reach
    return torch.where((away >= 0) & (away < len(bell)), bell[away.clamp(0, len(bell) - 1)], 0.0)
