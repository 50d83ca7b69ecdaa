"""Lightning's trainer of a run: when it validates, what it keeps, and its callbacks."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, Timer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy

from segpipe.config.train import Train
from segpipe.device import NumberFormat
from segpipe.quiet import quiet
from segpipe.ranks import Ranks
from segpipe.training.callbacks.checkpoints import best_and_last
from segpipe.training.callbacks.forecast import Forecast
from segpipe.training.callbacks.gradient_flow import GradientFlow
from segpipe.training.callbacks.history import History
from segpipe.training.callbacks.interrupt import EndsWithTheFirst, Interrupt
from segpipe.training.callbacks.patience import Patience
from segpipe.training.callbacks.phases import PhaseTimer
from segpipe.training.callbacks.progress import RunProgress
from segpipe.training.callbacks.step_timer import StepTimer
from segpipe.training.callbacks.threads import Threads
from segpipe.training.callbacks.validation_loss import ValidationLoss
from segpipe.training.task import NEVER, SegmentationTask

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
    callbacks = _callbacks(task.options, folder, phases, interrupt)
    if task.ranks.size == 1:  # else they have divided the cores
        callbacks.append(Threads(device))
    return _trainer(task, folder, device, logger, callbacks)


def make_follower(task: SegmentationTask, folder: Path, device: torch.device) -> pl.Trainer:
    """Return the trainer of a process beside the first one, which writes nothing.

    Args:
        task: the network with its options and budget.
        folder: the run's folder.
        device: the device of this process.
    """
    callbacks: list[Callback] = [*_shared(task.options), EndsWithTheFirst()]
    every = task.options.trainer.checkpoint_every
    callbacks += best_and_last(folder / "checkpoints", every)  # all decide, the first one writes
    return _trainer(task, folder, device, False, callbacks)


def _trainer(
    task: SegmentationTask,
    folder: Path,
    device: torch.device,
    logger: Logger | Literal[False],
    callbacks: list[Callback],
) -> pl.Trainer:
    """Return a trainer; its process has one device, which Lightning takes for a node of its own."""
    options = task.options
    several = task.ranks.size > 1
    parts = task.plan.parts
    interval = task.budget.validation_interval(options.trainer.validations)
    if isinstance(interval, int):
        interval *= parts  # Lightning counts what it is given at once
    if several and not task.budget.steps:
        interval = NEVER  # the task says when
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        num_nodes=task.ranks.size,
        strategy=_several(task.ranks) if several else "auto",
        use_distributed_sampler=False,
        sync_batchnorm=several and device.type == "cuda",
        precision=PRECISION[task.number_format],
        max_epochs=-1,
        val_check_interval=interval,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=options.optim.clip,
        accumulate_grad_batches=parts,
        callbacks=callbacks,
        logger=logger,
        log_every_n_steps=min(LOG_INTERVAL, options.trainer.steps_per_epoch),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


class _Environment(LightningEnvironment):
    """What Lightning asks of the processes, which have met already."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Return that Lightning need not start any."""
        return True

    def local_rank(self) -> int:
        """Return the number of the device among those that Lightning is told of, which is one."""
        return 0

    def node_rank(self) -> int:
        """Return the number of the process."""
        return self.ranks.rank


def _several(ranks: Ranks) -> DDPStrategy:
    """Return the strategy of several devices.

    That the graph is static lets a network have weights that it does not use.
    """
    return DDPStrategy(cluster_environment=_Environment(ranks), static_graph=True)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's banner, five warnings that ask nothing of the user, and nothing else.

    One is of its own call into torch. One is of checkpoints in the run's folder, which are those
    that a resumed run goes on from. One is of metrics that could differ between devices; ours are
    of all devices when they are logged. One is of weights of a single channel, whose memory format
    has two names. One is of a training that goes on in the middle of an epoch; the patches have
    numbers, by which it goes on.
    """
    with quiet("pytorch_lightning", level=logging.WARNING), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
        warnings.filterwarnings("ignore", ".* use `self.log.*sync_dist=True")
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        yield


def _callbacks(
    options: Train, folder: Path, phases: PhaseTimer, interrupt: Interrupt
) -> list[Callback]:
    """Return the callbacks in the order in which Lightning calls them."""
    callbacks: list[Callback] = [Timer(), *_shared(options)]
    if options.trainer.gradient_flow:
        callbacks.append(GradientFlow(folder, options.trainer.steps_per_epoch))
    callbacks += [interrupt, RunProgress(), Forecast(), StepTimer(folder), phases, History(folder)]
    every = options.trainer.checkpoint_every
    return [*callbacks, *best_and_last(folder / "checkpoints", every, interrupt)]


def _shared(options: Train) -> list[Callback]:
    """Return the callbacks that every process has: they meet in these, or change the weights."""
    callbacks: list[Callback] = []
    if options.optim.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=options.optim.ema))
    if options.trainer.patience is not None:
        callbacks.append(Patience(options.trainer.patience))
    return [*callbacks, ValidationLoss(options)]  # of the running mean, where there is one
