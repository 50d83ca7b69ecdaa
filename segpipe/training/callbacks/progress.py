"""Bars of the whole run, the epoch and the validation, each with the time left; and a line after each validation."""

import logging
import time
from typing import Any

import pytorch_lightning as pl
from rich.progress import TaskID

from segpipe.terminal import progress_bar
from segpipe.training.task import SegmentationTask

log = logging.getLogger("segpipe")


class RunProgress(pl.Callback):
    """Shows how much of the budget is spent, how far the epoch is, the loss and the last Dice."""

    def __init__(self) -> None:
        self.bar = progress_bar(counted=False)
        self.run: TaskID | None = None
        self.epoch: TaskID | None = None
        self.validation: TaskID | None = None
        self.began = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the bars."""
        self.bar.start()
        self.run = self.bar.add_task("training", total=1.0, note="")
        self.epoch = self.bar.add_task("epoch", total=float(trainer.num_training_batches), note="")
        self.began = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the epoch's bar again."""
        if self.epoch is not None:
            self.bar.reset(self.epoch, description=f"epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Moves the bars on."""
        assert isinstance(pl_module, SegmentationTask)
        if self.run is None or self.epoch is None:
            return
        if not self.bar.tasks[0].completed:
            log.debug("first step after %.1f s of training", time.perf_counter() - self.began)
        self.bar.update(
            self.run,
            completed=pl_module.spent(),
            note=f"step {trainer.global_step}  {_note(trainer)}",
        )
        self.bar.update(
            self.epoch,
            completed=batch_idx + 1,
            note=f"{batch_idx + 1} of {trainer.num_training_batches}",
        )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the validation's bar, over cases."""
        cases = float(sum(trainer.num_val_batches))
        self.validation = self.bar.add_task("validating", total=cases, note="")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Moves the validation's bar on."""
        if self.validation is not None:
            self.bar.update(self.validation, completed=batch_idx + 1, note=f"{batch_idx + 1} cases")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes a line with the Dice of whole scans."""
        assert isinstance(pl_module, SegmentationTask)
        if self.validation is not None:
            self.bar.remove_task(self.validation)
            self.validation = None
        measured = trainer.callback_metrics
        labels = "  ".join(
            f"{name} {measured[f'dice/{name}']:.4f}" for name in pl_module.plan.targets
        )
        log.info(
            "%3.0f %%  step %d  %s  (%s)",
            100 * pl_module.spent(),
            trainer.global_step,
            _note(trainer),
            labels,
        )
        for case, row in zip(pl_module.validated, pl_module.dice, strict=True):
            log.debug("%s: Dice %s", case, "  ".join(f"{dice:.4f}" for dice in row))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the bars away."""
        self.bar.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Takes the bars away."""
        self.bar.stop()


def _note(trainer: pl.Trainer) -> str:
    shown = {"loss": "loss", "dice/mean": "Dice"}
    measured = trainer.callback_metrics
    return "  ".join(
        f"{name} {measured[key]:.4f}" for key, name in shown.items() if key in measured
    )
