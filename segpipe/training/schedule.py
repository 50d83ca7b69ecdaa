"""The budget of a run in steps, epochs or wall time, and the learning rate that follows it."""

import math
from dataclasses import dataclass
from datetime import timedelta

from segpipe.config.train import Optim, TrainerOptions


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
        """The budget that the options give; `trainer.default_time` where they give none."""
        epochs = options.max_epochs and options.max_epochs * options.steps_per_epoch
        steps = min((number for number in (options.max_steps, epochs) if number), default=None)
        return cls(steps, options.max_time or (None if steps else options.default_time))

    def spent(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        by_step = step / self.steps if self.steps else 0.0
        by_time = seconds / self.time.total_seconds() if self.time else 0.0
        return min(1.0, max(by_step, by_time))

    def validation_interval(self, validations: int) -> int | timedelta | None:
        """The steps, or the wall time, between two of so many validations."""
        if self.steps:
            return max(1, self.steps // validations)
        return self.time / validations if self.time else None


def learning_rate(spent: float, options: Optim) -> float:
    """The learning rate when a share `spent` of the budget is gone.

    It rises linearly over the warm-up, then falls to 0 along a cosine (Loshchilov 2017) or the polynomial
    `(1 - t)^0.9` (Chen 2017, nnU-Net), or stays.
    """
    if spent < options.warmup:
        return options.lr * max(spent / options.warmup, 0.01)
    left = 1 - (spent - options.warmup) / (1 - options.warmup)
    course = {
        "cosine": (1 - math.cos(math.pi * left)) / 2,
        "poly": max(left, 0.0) ** 0.9,
        "constant": 1.0,
    }
    return options.lr * course[options.schedule]
