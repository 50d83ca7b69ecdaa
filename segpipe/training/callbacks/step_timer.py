"""Wall time of a step, by which variants can be compared too: `cost.json`."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from segpipe.files import write_json

FILE = "cost.json"


class StepTimer(pl.Callback):
    """A stopwatch of steps, which writes the median of this process's steps, in seconds.

    The time of a step includes that of cutting its patches.

    Args:
        folder: the run's folder, where `cost.json` is written.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.seconds: list[float] = []
        self.last_end: float | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure the time since the end of the step before."""
        now = time.perf_counter()
        if self.last_end is not None:
            self.seconds.append(now - self.last_end)
        self.last_end = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the time of a validation out."""
        self.last_end = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the median so far, and leave the time between epochs out."""
        self.last_end = None
        if self.seconds:
            seconds = trainer.accumulate_grad_batches * float(np.median(self.seconds))
            write_json(self.file, {"seconds_per_step": seconds})
