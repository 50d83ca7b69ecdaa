"""What a step of a run costs in time, so that variants can be compared by it too."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from segpipe.files import write_text

FILE = "cost.json"


class StepTimer(pl.Callback):
    """Writes `cost.json`: the median of the wall time of this process's steps, cutting of patches included, in seconds.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.seconds = folder / FILE, list[float]()
        self.last: float | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Takes the time since the end of the step before."""
        now = time.perf_counter()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the time of a validation out."""
        self.last = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the median so far, and leaves the time between epochs out."""
        self.last = None
        if self.seconds:
            write_text(
                self.file, json.dumps({"seconds_per_step": float(np.median(self.seconds))}) + "\n"
            )
