"""The budget of a run in steps, epochs or wall time, and the learning rate that follows it."""

import math
from dataclasses import dataclass
from datetime import timedelta

from segpipe.config.train import Optim, TrainerOptions

FIRST_FRACTION = 0.01  # of the highest learning rate, where the warm-up begins
POWER = 0.9  # of the polynomial course (Chen 2017)


@dataclass(frozen=True)
class Budget:
    """The end of a run.

    Attributes:
        steps: optimiser steps, or None.
        time: wall time from the first step, validations included, or None.
    """

    steps: int | None
    time: timedelta | None

    @classmethod
    def of(cls, options: TrainerOptions) -> "Budget":
        """Return the budget of the options; `trainer.default_time` where they give none."""
        limits = []
        if options.max_steps:
            limits.append(options.max_steps)
        if options.max_epochs:
            limits.append(options.max_epochs * options.steps_per_epoch)
        return cls(min(limits, default=None), options.wall_time)

    def spent(self, step: int, seconds: float) -> float:
        """Return the fraction of the budget that is spent, from 0 to 1."""
        by_step = step / self.steps if self.steps else 0.0
        by_time = seconds / self.time.total_seconds() if self.time else 0.0
        return min(1.0, max(by_step, by_time))

    def validation_interval(self, validations: int) -> int | timedelta | None:
        """Return the steps, or the wall time, between two of so many validations."""
        if self.steps:
            return max(1, self.steps // validations)
        return self.time / validations if self.time else None


def learning_rate(spent: float, options: Optim) -> float:
    """Return the learning rate when a fraction `spent` of the budget is gone.

    It rises linearly over the warm-up, then falls to 0 along a cosine (Loshchilov 2017) or the
    polynomial `(1 - t)^0.9` (Chen 2017, nnU-Net), or stays.
    """
    if spent < options.warmup:
        return options.lr * max(spent / options.warmup, FIRST_FRACTION)
    left = 1 - (spent - options.warmup) / (1 - options.warmup)
    course = {
        "cosine": (1 - math.cos(math.pi * left)) / 2,
        "poly": max(left, 0.0) ** POWER,
        "constant": 1.0,
    }
    return options.lr * course[options.schedule]
