"""About how many patches a budget of wall time holds, estimated before the first step.

A budget that holds few steps gets a narrower network, which makes several times as many of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segpipe.config.model import Model, MonaiModel
from segpipe.config.train import Train
from segpipe.device import NumberFormat, cpu_has
from segpipe.nets.describe import describe
from segpipe.plan import BATCH_VOXELS
from segpipe.planning.capacity import Capacity, capacity, narrowed, sized, usual_skips
from segpipe.planning.levels import decide_levels
from segpipe.planning.patch_size import round_up, shrink
from segpipe.threads import usual_threads

TRIAL = 64  # voxels along each axis of the patch whose multiply-adds are counted
PASSES = 3  # the backward pass has twice the multiply-adds of the forward pass
# a second, measured in trainings of 2 and of 37 labels on a core with AVX512 and AMX
MULTIPLY_ADDS: dict[NumberFormat, float] = {"bf16": 1.2e11, "fp16": 4e10, "float32": 4e10}
# in bf16: 4e10 to 5.2e10 of narrow networks, 6.4e10 to 7.2e10 of the usual ones; in 2D so even with
# AMX, where four trainings had 5.8e10 to 6.8e10, validations included
WITHOUT_AMX = 6e10
WITHOUT_AVX512 = 2e10  # 1.4e10 in 2D, 2.4e10 in 3D
LOGIT_SECONDS = 3e-8  # that the loss takes for a logit
# of the usual network, by axes that it sees; where a budget holds fewer, a narrower one is better
# (docs/recipe.md)
ENOUGH_STEPS = {2: 5000, 3: 1000}


@dataclass(frozen=True)
class Pace:
    """How fast a CPU trains, and for how long.

    Attributes:
        options: the run's options, with the channels of its network.
        seconds: the budget in seconds, times the cores.
        voxel_seconds: the seconds that one core takes for a voxel of a patch.
        capacity: what the budget lets the network be; None where its channels are given.
    """

    options: Train
    seconds: float
    voxel_seconds: float
    capacity: Capacity | None = None

    @classmethod
    def of(
        cls, options: Train, number_format: NumberFormat, channels: int, labels: int
    ) -> "Pace | None":
        """Estimate the pace of a run; None where the budget is not of wall time, or not known.

        An estimate does not depend on what else the machine does, so the folds of a
        cross-validation and the runs of a sweep have one plan. A network of MONAI is not known.

        Args:
            options: the run's options.
            number_format: the number format in which the network computes.
            channels: number of channels of an image.
            labels: number of labels, without the background.
        """
        time = options.trainer.wall_time
        if time is None or isinstance(options.model, MonaiModel):
            return None
        seconds = time.total_seconds() * usual_threads()
        found = _capacity(options, seconds, number_format, channels, labels)
        options = sized(options, found)
        voxel_seconds = _voxel_seconds(options, number_format, channels, labels)
        return cls(options, seconds, voxel_seconds, found)

    def patches(self, shape: Sequence[int], spacing: Sequence[float], largest: float) -> float:
        """Return how many patches of a case the budget holds.

        Args:
            shape: voxels of the case along the axes that the network sees.
            spacing: voxel size in mm along the same axes.
            largest: voxels that a patch may hold, before it is rounded up.
        """
        size = shrink(shape, largest)
        levels = decide_levels(self.options, size, list(spacing)).value
        voxels = math.prod(round_up(size, levels.strides))
        return self.seconds / (voxels * self.voxel_seconds)


def _capacity(
    options: Train, seconds: float, number_format: NumberFormat, channels: int, labels: int
) -> Capacity | None:
    """Return what so many seconds of a core let the network be; None where its channels are given.

    It is decided on the usual skips, so that all variants of skips have one size. The other
    arguments are those of `Pace.of`.
    """
    found = capacity(options, "cpu", 0.0)
    if found is None or not isinstance(options.model, Model):
        return None
    usual = options.model_copy(update={"model": usual_skips(options.model)})
    a_voxel = _voxel_seconds(sized(usual, found), number_format, channels, labels)
    steps = seconds / (BATCH_VOXELS["cpu", options.model.dims] * a_voxel)
    enough = ENOUGH_STEPS[options.model.dims]
    narrow = narrowed(found, options.model.dims, steps, enough)
    is_enough = steps >= enough or labels >= narrow.first  # channels to tell labels apart
    return found if is_enough else narrow


def _voxel_seconds(
    options: Train, number_format: NumberFormat, channels: int, labels: int
) -> float:
    """Return the seconds that one core takes for a voxel of a patch; arguments as of `Pace.of`."""
    size = [TRIAL] * options.model.dims
    levels = decide_levels(options, size, [1.0] * options.model.dims).value
    size = round_up(size, levels.strides)
    stages = describe(options.model, channels, labels + 1, levels.strides, levels.kernels, size)
    multiply_adds = sum(stage.multiply_adds for stage in stages) / math.prod(size)
    speed = _multiply_adds_a_second(number_format, options.model.dims)
    computing = PASSES * multiply_adds / speed
    comparing = (labels + 1) * LOGIT_SECONDS
    return float(computing + comparing)


def _multiply_adds_a_second(number_format: NumberFormat, dims: int) -> float:
    """Return how many multiply-adds a second a core makes here in a network of so many axes."""
    usual = MULTIPLY_ADDS[number_format]
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return min(usual, WITHOUT_AVX512)
    return usual if cpu_has("amx_bf16") and dims == 3 else min(usual, WITHOUT_AMX)
