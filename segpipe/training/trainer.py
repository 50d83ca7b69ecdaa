"""Lightning's trainer of a run: when it validates, what it keeps, and its callbacks."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, Timer
from pytorch_lightning.loggers import Logger

from segpipe.config.train import Train
from segpipe.device import NumberFormat
from segpipe.training.callbacks.checkpoints import best_and_last
from segpipe.training.callbacks.forecast import Forecast
from segpipe.training.callbacks.gradient_flow import GradientFlow
from segpipe.training.callbacks.history import History
from segpipe.training.callbacks.interrupt import Interrupt
from segpipe.training.callbacks.patience import Patience
from segpipe.training.callbacks.phases import PhaseTimer
from segpipe.training.callbacks.progress import RunProgress
from segpipe.training.callbacks.step_timer import StepTimer
from segpipe.training.task import SegmentationTask

LOG_INTERVAL = 10  # optimiser steps
PRECISION: dict[NumberFormat, Any] = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def make_trainer(
    task: SegmentationTask,
    folder: Path,
    device: torch.device,
    phases: PhaseTimer,
    logger: Logger,
    interrupt: Interrupt,
) -> pl.Trainer:
    """Return the trainer that ends with the task's budget.

    Args:
        task: the network with its options and budget.
        folder: the run's folder, in which all files are left.
        device: the device that trains.
        phases: measures the time of the phases of the run.
        logger: shows the run while it goes on.
        interrupt: ends the training at a signal.
    """
    options = task.options
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        precision=PRECISION[task.number_format],
        max_epochs=-1,
        val_check_interval=task.budget.validation_interval(options.trainer.validations),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=options.optim.clip,
        callbacks=_callbacks(options, folder, phases, interrupt),
        logger=logger,
        log_every_n_steps=min(LOG_INTERVAL, options.trainer.steps_per_epoch),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's banner, two warnings that ask nothing of the user, and nothing else.

    One is of its own call into torch. The other is of checkpoints in the run's folder, which are
    those that a resumed run goes on from.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        yield


def _callbacks(
    options: Train, folder: Path, phases: PhaseTimer, interrupt: Interrupt
) -> list[Callback]:
    """Return the callbacks in the order in which Lightning calls them."""
    callbacks: list[Callback] = [Timer()]
    if options.optim.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=options.optim.ema))
    if options.trainer.gradient_flow:
        callbacks.append(GradientFlow(folder, options.trainer.steps_per_epoch))
    if options.trainer.patience is not None:
        callbacks.append(Patience(options.trainer.patience))
    callbacks += [interrupt, RunProgress(), Forecast(), StepTimer(folder), phases, History(folder)]
    return [*callbacks, *best_and_last(folder / "checkpoints")]
