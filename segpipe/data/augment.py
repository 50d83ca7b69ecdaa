"""The random half of training: where a patch is cut, and what is changed in it; MONAI's transforms throughout.

Spatial changes move image and label together; intensity changes touch the image alone. Strengths are those of nnU-Net
(Isensee 2021) where `conf/augment/*.yaml` does not say otherwise.
"""

import math

from monai.transforms.compose import Compose
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
from monai.transforms.transform import MapTransform

from segpipe.config.train import Augment
from segpipe.plan import Plan

BOTH = ("image", "label")
NEAREST = ("bilinear", "nearest")
MARGIN = 1.15  # a patch is cut this much larger before it is rotated, so that its corners are anatomy


def patches(plan: Plan, foreground: float, augment: Augment) -> Compose:
    """Prepared case -> one augmented patch.

    Takes a dict with `image` `(c, x, y, z)`, `label` `(1, x, y, z)` and `indices` (per label the flat places of its
    voxels, as MONAI's `ClassesToIndices` makes them); gives `image` and `label` with the plan's patch as space.
    A share `foreground` of the patches is centred on a labelled voxel, every label equally often.
    """
    moved = augment.affine > 0 or augment.elastic > 0
    cut = [voxels if voxels == 1 or not moved else math.ceil(voxels * MARGIN) for voxels in plan.patch]
    labels = len(plan.labels) - 1
    ratios = [1 - foreground] + [foreground / labels] * labels
    crop = RandCropByLabelClassesd(
        BOTH, "label", cut, list(ratios), labels + 1, indices_key="indices", allow_smaller=True, warn=False
    )
    steps: list[MapTransform] = [crop, SpatialPadd(BOTH, cut)]
    if moved:
        steps += [*_spatial(plan, augment), CenterSpatialCropd(BOTH, plan.patch)]
    steps += [RandFlipd(BOTH, 0.5, axis) for axis in augment.mirror_axes if plan.patch[axis] > 1]
    return Compose([*steps, *_intensity(augment)])


def _spatial(plan: Plan, augment: Augment) -> list[MapTransform]:
    flat = [axis for axis, voxels in enumerate(plan.patch) if voxels == 1]
    # a slice may only be turned within its own plane, that is about the axis that is cut
    angle = math.radians(augment.rotate_deg)
    turns = [angle if not flat or axis in flat else 0.0 for axis in range(3)]
    sizes = [0.0 if axis in flat else augment.scale for axis in range(3)]
    steps: list[MapTransform] = []
    if augment.affine > 0:
        steps.append(
            RandAffined(
                BOTH,
                prob=augment.affine,
                rotate_range=turns,
                scale_range=sizes,
                mode=NEAREST,
                padding_mode="zeros",
            )
        )
    if augment.elastic > 0:
        steps.append(
            RandGridDistortiond(
                BOTH,
                prob=augment.elastic,
                distort_limit=(-0.1, 0.1),
                mode=NEAREST,  # type: ignore[arg-type]
                padding_mode="zeros",
            )
        )
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
