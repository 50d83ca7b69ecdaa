"""How long a run trains: a number of steps, of epochs, or wall time; whichever ends first."""

from dataclasses import dataclass
from datetime import timedelta

from segpipe.config.train import TrainerOptions


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
