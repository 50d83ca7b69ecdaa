"""Progress bars of the run, the epoch and the validation; and a log line after each validation."""

import logging
import time
from typing import Any

import pytorch_lightning as pl
from rich.progress import TaskID

from segpipe.terminal import progress_bar
from segpipe.text import count
from segpipe.training.task import SegmentationTask

log = logging.getLogger("segpipe")


class RunProgress(pl.Callback):
    """Bars that show how much of the budget is spent, how far the epoch is, loss and last Dice."""

    def __init__(self) -> None:
        self.bar = progress_bar(counted=False)
        self.run: TaskID | None = None
        self.epoch: TaskID | None = None
        self.validation: TaskID | None = None
        self.note = ""  # loss and Dice, which are new at the end of an epoch or a validation
        self.start = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bars."""
        self.bar.start()
        self.run = self.bar.add_task("training", total=1.0, note="")
        self.epoch = self.bar.add_task("epoch", total=float(trainer.num_training_batches), note="")
        self.start = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the epoch's bar, and show the loss of the last one."""
        self.note = _note(trainer)
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
        """Advance the bars."""
        assert isinstance(pl_module, SegmentationTask)
        if self.run is None or self.epoch is None:
            return
        if not self.bar.tasks[0].completed:
            log.debug("first step after %.1f s of training", time.perf_counter() - self.start)
        self.bar.update(
            self.run,
            completed=pl_module.spent(),
            note=f"step {trainer.global_step}  {self.note}",
        )
        self.bar.update(
            self.epoch,
            completed=batch_idx + 1,
            note=f"{batch_idx + 1} of {trainer.num_training_batches}",
        )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the validation's bar, which counts cases."""
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
        """Advance the validation's bar."""
        if self.validation is not None:
            done = batch_idx + 1
            self.bar.update(self.validation, completed=done, note=count(done, "case"))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the Dice of whole scans."""
        assert isinstance(pl_module, SegmentationTask)
        if self.validation is not None:
            self.bar.remove_task(self.validation)
            self.validation = None
        self.note = _note(trainer)
        metrics = trainer.callback_metrics
        dice = [f"{name} {metrics[f'dice/{name}']:.4f}" for name in pl_module.plan.targets]
        log.info(
            "%3.0f %%  step %d  %s  (%s)",
            100 * pl_module.spent(),
            trainer.global_step,
            self.note,
            "  ".join(dice),
        )
        for case, dice_of_case in zip(pl_module.validated, pl_module.dice, strict=True):
            log.debug("%s: Dice %s", case, "  ".join(f"{value:.4f}" for value in dice_of_case))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bars."""
        self.bar.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Remove the bars."""
        self.bar.stop()


def _note(trainer: pl.Trainer) -> str:
    """Return the loss and the mean Dice as far as they are measured."""
    titles = {"loss": "loss", "dice/mean": "Dice"}
    metrics = trainer.callback_metrics
    return "  ".join(
        f"{title} {metrics[key]:.4f}" for key, title in titles.items() if key in metrics
    )
