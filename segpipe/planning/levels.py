"""Strides and kernels of the levels of a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.config.model import MonaiModel
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.planning.decision import GIVEN, Decision, by_times
from segpipe.text import count

SMALLEST_LEVEL = 4  # voxels along an axis below which it is no longer halved


@dataclass(frozen=True)
class Levels:
    """What happens at each level of a network, along the axes that it sees.

    Attributes:
        strides: the stride of each downsampling, finest first, 2 for each axis that is halved, else
            1.
        kernels: the sizes of the convolutions' kernels of each level, finest first, in voxels.
    """

    strides: list[list[int]]
    kernels: list[list[int]]


def decide_levels(options: Train, patch: list[int], spacing: list[float]) -> Decision[Levels]:
    """Return strides and kernels for each level.

    An axis is halved only while its voxels are the finest, or nearly so. A network of MONAI halves
    as it was made to, whatever the data.

    Args:
        options: the run's options.
        patch: size in voxels along the axes that the network sees.
        spacing: voxel size in mm along the same axes.

    Raises:
        ConfigError: if what is given has not an entry for each level and axis.
    """
    given = options.plan
    if isinstance(options.model, MonaiModel):
        if given.strides or given.kernels:
            raise ConfigError(
                "plan.strides and plan.kernels are for network=unet: give model.arguments instead"
            )
        return levels_decision(_fixed(options.model), "as the network has them")
    _check(options, "strides", given.strides, options.model.levels - 1)
    _check(options, "kernels", given.kernels, options.model.levels)
    levels = _derive(options, patch, spacing)
    fixed = [key for key in ("strides", "kernels") if getattr(given, key) is not None]
    if fixed:
        return levels_decision(levels, f"{' and '.join(fixed)} {GIVEN}")
    why = count(options.model.levels, "level")
    if spacing != [spacing[0]] * len(spacing):
        why += ", coarse axes later"
    return levels_decision(levels, why)


def levels_decision(levels: Levels, why: str) -> Decision[Levels]:
    """Return strides and kernels with the reason for them."""
    strides = ", ".join(map(by_times, levels.strides))
    kernels = ", ".join(map(by_times, levels.kernels))
    return Decision(levels, f"strides {strides}; kernels {kernels}", why)


def _fixed(model: MonaiModel) -> Levels:
    """Return the levels of a network that halves every axis at each."""
    return Levels([[2] * model.dims] * (model.levels - 1), [[3] * model.dims] * model.levels)


def _check(options: Train, key: str, rows: Sequence[Sequence[int]] | None, needed: int) -> None:
    """Raise ConfigError unless there are as many rows as needed, each with an entry per axis."""
    model = options.model
    if rows is not None and [len(row) for row in rows] != [model.dims] * needed:
        raise ConfigError(
            f"plan.{key} must have {needed} entries of {model.dims}, since model.channels has "
            f"{model.levels} levels and model.dims is {model.dims}; it is {rows}"
        )


def _derive(options: Train, patch: list[int], spacing: list[float]) -> Levels:
    """Return the levels that suit patch and spacing, with those that are given."""
    given = options.plan
    voxels = np.array(patch)
    mm = np.array(spacing)
    strides: list[list[int]] = []
    kernels: list[list[int]] = []
    for level in range(options.model.levels):
        is_fine = mm <= 2 * mm.min()
        kernels.append(np.where(is_fine & (voxels > 1), 3, 1).tolist())
        if level == options.model.levels - 1:
            break
        halved = (mm < 2 * mm.min()) & (voxels >= 2 * SMALLEST_LEVEL)
        if given.strides is not None:
            halved = np.array(given.strides[level]) == 2
        strides.append(np.where(halved, 2, 1).tolist())
        voxels = np.where(halved, -(-voxels // 2), voxels)
        mm = np.where(halved, 2 * mm, mm)
    if given.kernels is not None:
        kernels = [list(row) for row in given.kernels]
    return Levels(strides, kernels)
