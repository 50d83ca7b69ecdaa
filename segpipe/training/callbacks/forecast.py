"""A line soon after the start: how many steps the budget holds, or how long its steps take."""

import logging
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl

from segpipe.text import count
from segpipe.training.schedule import Budget
from segpipe.training.task import SegmentationTask

WARM_UP = 3  # steps at the start that take longer than others
MEASURED = 10  # steps after those

log = logging.getLogger("segpipe")


class Forecast(pl.Callback):
    """Measures the first steps of a run, and logs what the budget will hold at that speed."""

    def __init__(self) -> None:
        self.steps = 0  # of this process
        self.start = 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the step, and log the forecast behind the last one that is measured."""
        assert isinstance(pl_module, SegmentationTask)
        self.steps += 1
        if self.steps == WARM_UP:
            self.start = time.perf_counter()
        if self.steps == WARM_UP + MEASURED:
            seconds = pl_module.plan.parts * (time.perf_counter() - self.start) / MEASURED
            left = 1 - pl_module.spent()
            steps = steps_in_all(pl_module.budget, left, trainer.global_step, seconds)
            patches = steps * pl_module.plan.batch / max(1, pl_module.data.train)
            remaining = timedelta(seconds=round((steps - trainer.global_step) * seconds))
            log.info(
                "%.2g s a step: about %s in all, with about %d patches of each training case; "
                "%s of training left, validations not counted",
                seconds,
                count(steps, "step"),
                round(patches),
                remaining,
            )


def steps_in_all(budget: Budget, left: float, done: int, seconds: float) -> int:
    """Return about how many steps a run will have made at its end.

    Args:
        budget: the budget of the run.
        left: fraction of the budget.
        done: steps so far.
        seconds: the seconds that a step takes.
    """
    limits = []
    if budget.steps is not None:
        limits.append(budget.steps)
    if budget.time is not None:
        limits.append(done + round(left * budget.time.total_seconds() / seconds))
    return min(limits)
