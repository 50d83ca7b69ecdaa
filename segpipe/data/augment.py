"""Random augmentation of training patches, and how large a patch is cut for it.

Spatial changes move image and label together, those of `warp.py` and mirroring; intensity changes
concern the image alone and are registered in `AUGMENTATIONS` (`intensity.py`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import set_track_meta
from monai.transforms.spatial.dictionary import RandFlipd
from monai.transforms.transform import MapTransform, Randomizable
from torch import Tensor

from segpipe.config.train import Augment
from segpipe.data.patch_sampler import PatchSampler
from segpipe.data.warp import BOTH, RandWarpd
from segpipe.plan import ANISOTROPIC, Plan
from segpipe.registry import AUGMENTATIONS

UNCHANGED = -1  # in place of the seed of a patch that is not augmented
MARGIN = 1.15  # a patch is cut larger by this factor before it is rotated, to fill its corners


def make_sampler(plan: Plan, foreground: float, augment: Augment) -> PatchSampler:
    """Return the sampler that cuts patches from prepared cases.

    Args:
        plan: the plan of the run.
        foreground: share of patches that are centred on a labelled voxel, every label equally
            often.
        augment: the options of augmentation; a patch that may be rotated is cut larger.
    """
    size = list(plan.patch)
    if _is_spatial(augment):
        for axis in _axes_in_plane(plan):
            size[axis] = math.ceil(size[axis] * MARGIN)
    labels = len(plan.labels) - 1
    return PatchSampler(size, [1 - foreground] + [foreground / labels] * labels)


class Augmentation:
    """Transforms applied in turn, which all draw from one random stream that each patch seeds.

    This does what MONAI's `Compose` does, without the metadata and the lazy transforms.

    Args:
        transforms: on a dictionary of `image` and `label`.
    """

    def __init__(self, transforms: Sequence[MapTransform]) -> None:
        first = transforms[0] if transforms else None
        self.warp = first if isinstance(first, RandWarpd) else None
        self.others = transforms[1:] if self.warp is not None else transforms
        self.rng = np.random.RandomState(0)
        for transform in transforms:
            if isinstance(transform, Randomizable):
                transform.set_random_state(state=self.rng)

    def __call__(self, patch: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Return `image` and `label` of a patch, augmented on the device that holds them.

        A patch whose seed is `UNCHANGED` is only cut to size.
        """
        images, labels = self.batch(patch["image"][None], patch["label"][None], [seed])
        return {"image": images[0], "label": labels[0]}

    def batch(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a batch of patches, each augmented as a call with its seed augments it.

        All are warped in one interpolation, and the host never waits for the device that holds
        them.

        Args:
            images: shape `(b, c, x, y, z)`, as `make_sampler` cuts them.
            labels: shape `(b, 1, x, y, z)`.
            seeds: one for each patch.

        Returns:
            Images `(b, c, *patch)`, and labels `(b, 1, *patch)`, uint8.
        """
        lines = []
        states = []  # of the random stream behind the warp of each patch; None: left as it is
        for seed in seeds:
            line = None
            state = None
            if seed != UNCHANGED:
                self.rng.seed(seed)
                line = None if self.warp is None else self.warp.draw(images.shape[2:])
                state = self.rng.get_state()
            lines.append(line)
            states.append(state)
        cuts = list(images), list(labels)
        if self.warp is not None:
            cuts = self.warp.warp(images, labels, lines)
        patches = []
        for image, label, state in zip(*cuts, states, strict=True):
            patches.append(self._finish({"image": image, "label": label}, state))
        changed_images = torch.stack([patch["image"] for patch in patches])
        return changed_images, torch.stack([patch["label"] for patch in patches])

    def _finish(self, patch: Mapping[str, Tensor], state: Any) -> dict[str, Tensor]:
        """Apply all transforms behind the warp, with the random stream in a state; None: none."""
        changed: Any = patch
        if state is not None:
            self.rng.set_state(state)
            with _without_metadata():
                for transform in self.others:
                    changed = transform(changed)
        return {"image": changed["image"], "label": changed["label"].to(torch.uint8)}


@contextmanager
def _without_metadata() -> Iterator[None]:
    """Keep MONAI from tracking affines, which takes as long as the augmentation itself."""
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(True)


def make_augmentation(plan: Plan, augment: Augment) -> Augmentation:
    """Return what augments the patches that `make_sampler` cuts.

    It gives `image`, shape `(c, *patch)`, and `label`, shape `(1, *patch)`. Each transform is there
    even if its probability is 0, so that switching one off leaves the draws of the others alone.
    """
    transforms: list[MapTransform] = []
    if _is_spatial(augment):
        transforms.append(_make_warp(plan, augment))
    for axis in augment.mirror_axes:
        if plan.patch[axis] > 1:
            transforms.append(RandFlipd(BOTH, 0.5, axis))
    for name in AUGMENTATIONS:
        transforms.append(AUGMENTATIONS[name](getattr(augment, name, 0.0)))
    return Augmentation(transforms)


def _is_spatial(augment: Augment) -> bool:
    return augment.affine > 0 or augment.elastic > 0


def _axes_in_plane(plan: Plan) -> list[int]:
    """Return the axes along which a patch may be rotated and scaled.

    These are not those across slices, nor along a coarse axis: rotating voxels of 1x1x5 mm out of
    their plane would mix what lies 5 mm apart with what lies 1 mm apart.
    """
    finest = min((mm for mm in plan.spacing_mm if mm is not None), default=1.0)
    axes = []
    for axis, (voxels, mm) in enumerate(zip(plan.patch, plan.spacing_mm, strict=True)):
        if voxels > 1 and (mm or finest) <= ANISOTROPIC * finest:
            axes.append(axis)
    return axes


def _make_warp(plan: Plan, augment: Augment) -> RandWarpd:
    plane = _axes_in_plane(plan)
    angles = [0.0, 0.0, 0.0]
    sizes = [0.0, 0.0, 0.0]
    for axis in range(3):
        # within a plane, a patch is rotated about the axis that is not in it
        if len(plane) == 3 or (len(plane) == 2 and axis not in plane):
            angles[axis] = math.radians(augment.rotate_deg)
        if axis in plane:
            sizes[axis] = augment.scale
    return RandWarpd(plan.patch, augment.affine, angles, sizes, augment.elastic, plane)
