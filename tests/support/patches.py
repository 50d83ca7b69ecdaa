"""Patches cut and augmented in one step."""

from typing import Any

import numpy as np
import torch

from segpipe.config.train import Augment
from segpipe.data.augment import make_augmentation, make_sampler
from segpipe.plan import Plan


def voxel_indices(label: torch.Tensor, labels: int) -> list[np.ndarray]:
    """Per label the flat indices of its voxels."""
    flat = label.numpy().ravel()
    return [(flat == number).nonzero()[0] for number in range(labels)]


def cut_and_augment(
    plan: Plan, foreground: float, augment: Augment, prepared: dict[str, Any], seed: int
) -> dict[str, Any]:
    patch = make_sampler(plan, foreground, augment)(**prepared, seed=seed)
    return make_augmentation(plan, augment)(patch, seed)
