"""About how many patches a budget of wall time holds, estimated before the first step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segpipe.config.model import MonaiModel
from segpipe.config.train import Train
from segpipe.device import NumberFormat
from segpipe.nets.describe import describe
from segpipe.planning.capacity import capacity, sized
from segpipe.planning.levels import decide_levels
from segpipe.planning.patch_size import round_up, shrink

TRIAL = 64  # voxels along each axis of the patch whose multiply-adds are counted
PASSES = 3  # the backward pass has twice the multiply-adds of the forward pass
# measured in trainings of 2 and of 37 labels on a core with AVX512-BF16
MULTIPLY_ADDS: dict[NumberFormat, float] = {"bf16": 1.2e11, "fp16": 4e10, "float32": 4e10}
LOGIT_SECONDS = 3e-8  # that the loss takes for a logit


@dataclass(frozen=True)
class Pace:
    """How fast a CPU trains, and for how long.

    Attributes:
        options: the run's options, with the channels of its network.
        seconds: the budget in seconds, times the cores.
        voxel_seconds: the seconds that one core takes for a voxel of a patch.
    """

    options: Train
    seconds: float
    voxel_seconds: float

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
        options = sized(options, capacity(options, "cpu", 0.0))
        size = [TRIAL] * options.model.dims
        levels = decide_levels(options, size, [1.0] * options.model.dims).value
        size = round_up(size, levels.strides)
        stages = describe(options.model, channels, labels + 1, levels.strides, levels.kernels, size)
        multiply_adds = sum(stage.multiply_adds for stage in stages) / math.prod(size)
        computing = PASSES * multiply_adds / MULTIPLY_ADDS[number_format]
        comparing = (labels + 1) * LOGIT_SECONDS
        seconds = time.total_seconds() * torch.get_num_threads()
        return cls(options, seconds, float(computing + comparing))

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
