"""The random half of training: where a patch is cut, and what is changed in it; MONAI's transforms throughout.

Spatial changes move image and label together; intensity changes touch the image alone. Strengths are those of nnU-Net
(Isensee 2021) where `conf/augment/*.yaml` does not say otherwise.
"""

import math

import numpy as np
from monai.transforms.compose import Compose, OneOf
from monai.transforms.croppad.dictionary import CenterSpatialCropd, RandCropByLabelClassesd, SpatialPadd
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
)
from monai.transforms.spatial.dictionary import (
    RandAffined,
    RandFlipd,
    RandGridDistortiond,
    RandSimulateLowResolutiond,
)
from monai.transforms.transform import MapTransform, Randomizable

from segpipe.config.train import Augment
from segpipe.plan import ANISOTROPIC, Plan

BOTH = ("image", "label")
NEAREST = ("bilinear", "nearest")
MARGIN = 1.15  # a patch is cut this much larger before it is rotated, so that its corners are anatomy


def cutting(plan: Plan, foreground: float, augment: Augment) -> Compose:
    """Prepared case -> patch, a little larger than the plan's where `changing` will move it.

    Takes a dict with `image` `(c, x, y, z)`, `label` `(1, x, y, z)` and `indices` (per label the flat places of its
    voxels, as MONAI's `ClassesToIndices` makes them); gives a list of one such dict.
    A share `foreground` of the patches is centred on a labelled voxel, every label equally often.
    """
    flat = _in_plane(plan)
    grown = [math.ceil(voxels * MARGIN) if axis in flat else voxels for axis, voxels in enumerate(plan.patch)]
    cut = grown if _moves(augment) else plan.patch
    labels = len(plan.labels) - 1
    ratios = [1 - foreground] + [foreground / labels] * labels
    crop = RandCropByLabelClassesd(
        BOTH, "label", cut, list(ratios), labels + 1, indices_key="indices", allow_smaller=True, warn=False
    )
    return _of_one_stream(Compose([crop, SpatialPadd(BOTH, cut)]))


def changing(plan: Plan, augment: Augment) -> Compose:
    """What was cut -> augmented patch: `image` `(c, *patch)` and `label` `(1, *patch)`, on their own device."""
    steps: list[MapTransform | OneOf] = _spatial(plan, augment) if _moves(augment) else []
    steps += [RandFlipd(BOTH, 0.5, axis) for axis in augment.mirror_axes if plan.patch[axis] > 1]
    return _of_one_stream(Compose([*steps, *_intensity(augment)]))


def _of_one_stream(transforms: Compose, stream: np.random.RandomState | None = None) -> Compose:
    """Lets all of them draw from one stream of chance, `transforms.R`, so that a seed is set once for a patch."""
    transforms.R = stream or np.random.RandomState(0)
    for transform in transforms.transforms:
        if isinstance(transform, Compose):
            _of_one_stream(transform, transforms.R)
        elif isinstance(transform, Randomizable):
            transform.set_random_state(state=transforms.R)
    return transforms


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


def _spatial(plan: Plan, augment: Augment) -> list[MapTransform | OneOf]:
    """What was cut larger -> a patch of the plan's size."""
    plane = _in_plane(plan)
    angle = math.radians(augment.rotate_deg)
    # what has a plane is only turned within it, that is about the axis that is not in it
    turns = [angle if len(plane) == 3 or (len(plane) == 2 and axis not in plane) else 0.0 for axis in range(3)]
    sizes = [augment.scale if axis in plane else 0.0 for axis in range(3)]
    turn = RandAffined(
        BOTH,
        plan.patch,
        prob=1,
        rotate_range=turns,
        scale_range=sizes,
        mode=NEAREST,
        padding_mode="zeros",
        cache_grid=True,
    )
    # what is not turned is not interpolated either
    steps: list[MapTransform | OneOf] = [
        OneOf([turn, CenterSpatialCropd(BOTH, plan.patch)], [augment.affine, 1 - augment.affine])
    ]
    if augment.elastic > 0:
        bend = RandGridDistortiond(
            BOTH,
            prob=augment.elastic,
            distort_limit=(-0.1, 0.1),
            mode=NEAREST,  # type: ignore[arg-type]
            padding_mode="zeros",
        )
        steps.insert(0, bend)
    return steps


def _intensity(augment: Augment) -> list[MapTransform]:
    sigma = (0.5, 1.0)
    return [
        RandGaussianNoised("image", prob=augment.noise, std=0.3),
        RandGaussianSmoothd("image", sigma, sigma, sigma, prob=augment.blur),
        RandScaleIntensityd("image", 0.25, prob=augment.brightness),
        RandScaleIntensityFixedMeand("image", (-0.25, 0.25), prob=augment.contrast, preserve_range=True),
        RandSimulateLowResolutiond("image", prob=augment.low_resolution, zoom_range=(0.5, 1.0)),
        RandAdjustContrastd("image", prob=augment.gamma, gamma=(0.7, 1.5), retain_stats=True),
    ]
