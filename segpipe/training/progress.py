"""The bar of a whole run, and a line after each validation."""

import logging
from typing import Any

import pytorch_lightning as pl
from rich.progress import TaskID

from segpipe.terminal import progress_bar
from segpipe.training.task import SegmentationTask

log = logging.getLogger("segpipe")


class RunProgress(pl.Callback):
    """Shows how much of the budget is spent, the time left, the loss and the last Dice."""

    def __init__(self) -> None:
        self.bar = progress_bar(counted=False)
        self.task: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the bar."""
        self.bar.start()
        self.task = self.bar.add_task("training", total=1.0, note="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar on."""
        assert isinstance(pl_module, SegmentationTask)
        if self.task is not None:
            self.bar.update(
                self.task, completed=pl_module.spent(), note=f"step {trainer.global_step}  {_note(trainer)}"
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes a line with the Dice of whole scans."""
        assert isinstance(pl_module, SegmentationTask)
        measured = trainer.callback_metrics
        labels = "  ".join(f"{name} {measured[f'dice/{name}']:.4f}" for name in pl_module.plan.targets)
        log.info(
            "%3.0f %%  step %d  %s  (%s)",
            100 * pl_module.spent(),
            trainer.global_step,
            _note(trainer),
            labels,
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the bar away."""
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Takes the bar away."""
        self.bar.stop()


def _note(trainer: pl.Trainer) -> str:
    shown = {"loss": "loss", "dice/mean": "Dice"}
    measured = trainer.callback_metrics
    return "  ".join(f"{name} {measured[key]:.4f}" for key, name in shown.items() if key in measured)
