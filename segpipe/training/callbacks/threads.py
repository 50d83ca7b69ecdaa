"""A training on a CPU that other processes use, too."""

from typing import Any

import pytorch_lightning as pl

from segpipe.threads import fit_threads


class Threads(pl.Callback):
    """Keeps the number of threads at what other processes leave."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to watch the other processes."""
        fit_threads(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Fit the threads after a step."""
        fit_threads(pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Fit the threads after a validation case."""
        fit_threads(pl_module.device)
