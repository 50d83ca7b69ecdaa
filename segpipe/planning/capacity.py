"""Levels and channels of a network, where the options leave them to the plan.

A CPU gets the small network that it can train. A GPU gets nnU-Net's proportions, and more of
everything the more memory it has; its rules take no notice of a network's skips, so that the
variants of a study have one size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segpipe.config.model import SMALL, AnyModel, Model, doubling
from segpipe.config.train import Train
from segpipe.plan import Plan
from segpipe.planning.decision import Decision
from segpipe.planning.levels import SMALLEST_LEVEL, Levels, decide_levels, levels_decision
from segpipe.text import count, rounded

# nnU-Net's 3D and 2D networks, which are made for a GPU of 8 GiB
NNUNET_GIB = 8.0
NNUNET_FIRST = 32  # channels of the finest level
NNUNET_DOUBLINGS = {2: 16, 3: 10}  # most channels: so many times the finest level's
NNUNET_LEVELS = {2: 8, 3: 6}
CHANNEL_STEP = 16  # to whose multiples channels are rounded, as tensor cores like them
# of a CPU's network where time is short, by axes: channels of the finest level, most channels
NARROW = {2: (16, 128), 3: (8, 64)}
KEPT_KERNEL = 2.0  # an axis is seen once its voxels are less than this times the finest


@dataclass(frozen=True)
class Capacity:
    """What a device lets a planned network be.

    Attributes:
        first: channels of the finest level.
        widest: most channels of a level.
        levels: most levels.
        growth: voxels of a training step, relative to the usual ones.
        why: the reason.
    """

    first: int
    widest: int
    levels: int
    growth: float
    why: str


def capacity(options: Train, device: str, memory_gib: float) -> Capacity | None:
    """Return what a device lets a network be; None where the options say what it is.

    On a GPU of N times nnU-Net's 8 GiB, channels are the cube root of N wider, voxels of a step are
    as many more as fill the memory, and half of the doublings of these are the patch's, the others
    the batch's.

    Args:
        options: the run's options.
        device: `cpu` or `cuda`.
        memory_gib: memory of the GPU.
    """
    model = options.model
    if not isinstance(model, Model) or model.channels is not None:
        return None
    if device == "cpu":
        return Capacity(*SMALL[model.dims], 1.0, "what a CPU can train")
    ratio = max(1.0, memory_gib / NNUNET_GIB)
    wider = ratio ** (1 / 3)
    first = round(NNUNET_FIRST * wider / CHANNEL_STEP) * CHANNEL_STEP
    growth = max(1.0, ratio * NNUNET_FIRST / first)
    why = "those of nnU-Net's"
    if first > NNUNET_FIRST:
        why += f", {first / NNUNET_FIRST:.3g} times as wide"
    why += f", for a GPU of {memory_gib:.0f} GiB"
    levels = NNUNET_LEVELS[model.dims]
    return Capacity(first, first * NNUNET_DOUBLINGS[model.dims], levels, growth, why)


def narrowed(usual: Capacity, dims: int, steps: float, enough: int) -> Capacity:
    """Return what a CPU's network may be where the budget holds few steps of the usual one.

    Args:
        usual: what it may be otherwise.
        dims: axes that the network sees.
        steps: steps of the usual network that the budget holds.
        enough: steps for which the usual network is the better one.
    """
    first, widest = NARROW[dims]
    why = (
        f"narrower, since the budget holds about {rounded(steps, 2)} steps of the usual network, "
        f"which begins with {usual.first} channels ({enough} are enough)"
    )
    return replace(usual, first=first, widest=widest, why=why)


def decide_network(
    options: Train, found: Capacity | None, patch: list[int], spacing: list[float], device: str
) -> tuple[Decision[list[int] | None], Decision[Levels]]:
    """Return channels per level, None where they are given, with strides and kernels.

    Lists that are given per level, as of long skips, say how many levels there are.

    Args:
        options: the run's options.
        found: what the device lets the network be; None where its channels are given.
        patch: size in voxels along the axes that the network sees.
        spacing: voxel size in mm along the same axes.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: if what is given has not an entry for each level and axis.
    """
    if found is None:
        return Decision(None, "", ""), decide_levels(options, patch, spacing)
    levels = _given_levels(options)
    if device == "cuda" and levels is None:
        planned = derive_levels(patch, spacing, found.levels, options.plan.patch is not None)
        levels = len(planned.kernels)
        decided = levels_decision(
            planned,
            f"{count(levels, 'level')}: halved down to {SMALLEST_LEVEL} voxels at least, coarse "
            "axes later",
        )
    else:
        levels = levels or found.levels
        decided = decide_levels(sized(options, found), patch, spacing)
    widths = doubling(found.first, found.widest, levels)
    return Decision(widths, network_entry(widths), found.why), decided


def sized(options: Train, found: Capacity | None) -> Train:
    """Return the options with the channels of a CPU's network, where they are not given.

    Args:
        options: the run's options.
        found: what the device lets the network be; None where its channels are given.
    """
    model = options.model
    if found is None or not isinstance(model, Model):
        return options
    levels = _given_levels(options) or found.levels
    widths = doubling(found.first, found.widest, levels)
    return options.model_copy(update={"model": model.with_channels(widths)})


def planned_model(model: AnyModel, plan: Plan) -> AnyModel:
    """Return the network of a plan: its channels are the plan's where they are not given."""
    if isinstance(model, Model) and plan.widths is not None:
        return model.with_channels(plan.widths)
    return model


def usual_skips(model: Model) -> Model:
    """Return the network with the skips of a U-Net, by which all variants of skips are sized.

    The number of levels stays, where a list says it.
    """
    usual: dict[str, Any] = {
        "long_skips": "concat",
        "short_skips": "none",
        "skip_dropout": 0.0,
        "match": "none",
    }
    if model.fixed_by is not None:
        usual["long_skips"] = ["concat"] * (model.levels - 1)
    return model.model_copy(update=usual)


def network_entry(widths: Sequence[int]) -> str:
    """Return the channels per level as logs and pages show them."""
    return f"network of {count(len(widths), 'level')}, channels {', '.join(map(str, widths))}"


def network_of(plan: Plan, why: str) -> tuple[Decision[list[int] | None], Decision[Levels]]:
    """Return the network of another plan, that of the same run with the usual skips."""
    assert plan.widths is not None
    entry = network_entry(plan.widths)
    levels = Levels(plan.strides, plan.kernels)
    reason = f"{count(len(plan.kernels), 'level')}, as with the usual skips"
    return Decision(plan.widths, entry, f"{why}, as with the usual skips"), levels_decision(
        levels, reason
    )


def _given_levels(options: Train) -> int | None:
    """Return the number of levels that some given list has; None where none is given."""
    model = options.model
    if isinstance(model, Model) and model.fixed_by is not None:
        return model.levels
    if options.plan.strides is not None:
        return len(options.plan.strides) + 1
    return None if options.plan.kernels is None else len(options.plan.kernels)


def derive_levels(patch: Sequence[int], spacing: Sequence[float], most: int, even: bool) -> Levels:
    """Return levels as nnU-Net has them: an axis is halved while 4 voxels are left.

    Of the axes that can be halved, those are whose voxels are less than twice the finest of them. A
    kernel looks along an axis once its voxels are less than twice the finest, and ever after.

    Args:
        patch: size in voxels along the axes that the network sees.
        spacing: voxel size in mm along the same axes.
        most: levels.
        even: whether the patch is given, so that only even edges can be halved.
    """
    voxels = np.array(patch)
    mm = np.array(spacing)
    strides: list[list[int]] = []
    kernels: list[list[int]] = []
    is_seen = np.zeros(len(voxels), dtype=bool)
    while True:
        is_seen |= (mm < KEPT_KERNEL * mm.min()) & (voxels > 1)
        kernels.append(np.where(is_seen, 3, 1).tolist())
        can_be = voxels >= 2 * SMALLEST_LEVEL
        if even:
            can_be &= voxels % 2 == 0
        if len(kernels) == most or not can_be.any():
            return Levels(strides, kernels)
        halved = can_be & (mm < 2 * mm[can_be].min())
        strides.append(np.where(halved, 2, 1).tolist())
        voxels = np.where(halved, -(-voxels // 2), voxels)
        mm = np.where(halved, 2 * mm, mm)
