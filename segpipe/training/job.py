"""A training, by the first process or by one beside it, to which the first has told it."""

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from segpipe import extensions
from segpipe.accelerator import is_out_of_memory, place
from segpipe.checkpoint import TrainedOn
from segpipe.config.train import Train
from segpipe.data.cases import Case
from segpipe.data.module import CaseData
from segpipe.device import NumberFormat
from segpipe.nets.build import build
from segpipe.nets.unet import UNet
from segpipe.plan import Plan
from segpipe.planning.memory import smaller_plan
from segpipe.ranks import Ranks
from segpipe.signals import Stopped
from segpipe.training.callbacks.interrupt import Interrupt
from segpipe.training.callbacks.phases import PhaseTimer
from segpipe.training.initial import Record, freeze
from segpipe.training.loggers import open_logger
from segpipe.training.out_of_memory import SMALLER, OutOfMemory, out_of_memory
from segpipe.training.provenance import write_plan
from segpipe.training.schedule import Budget
from segpipe.training.task import SegmentationTask
from segpipe.training.trainer import make_follower, make_trainer, quiet_lightning

log = logging.getLogger("segpipe")


@dataclass(frozen=True)
class Job:
    """A training that is prepared.

    Attributes:
        folder: the folder of the run.
        options: the options of the run; its model has the channels that matching found.
        plan: the plan of the run.
        number_format: the format in which whole scans are predicted.
        trained_on: a record of the training data.
        train: cases that train.
        val: cases that validate.
        entries: the entries of the training cases in the cache, for the other processes.
        weights: the weights with which the network begins, for the other processes.
        initial: a record of the trained weights that the network started from.
        goes_on: whether it goes on from the last checkpoint, though it is not a resumed run's.
    """

    folder: Path
    options: Train
    plan: Plan
    number_format: NumberFormat
    trained_on: TrainedOn
    train: Sequence[Case]
    val: Sequence[Case]
    entries: Sequence[Path] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)
    initial: Record | None = None
    goes_on: bool = False

    @property
    def last(self) -> Path:
        """The checkpoint from which a stopped training goes on."""
        return self.folder / "checkpoints" / "last.ckpt"

    def smaller(self, device: torch.device) -> "Job | None":
        """Return the training with a step that needs less memory; None where there is none."""
        kind = device.type
        plan = smaller_plan(self.plan, self.options, self.number_format, kind, SMALLER)
        if plan is None:
            return None
        return replace(self, plan=plan, goes_on=self.last.is_file())

    def task(self, network: nn.Module, ranks: Ranks) -> SegmentationTask:
        """Return the steps of the training."""
        budget = Budget.of(self.options.trainer)
        if isinstance(network, UNet):
            network.recomputes = self.plan.recompute
        return SegmentationTask(
            network,
            self.plan,
            self.options,
            budget,
            self.number_format,
            self.trained_on,
            self.initial,
            ranks,
        )

    def cases(self, device: torch.device, ranks: Ranks) -> CaseData:
        """Return a device's share of the patches and of the cases that validate."""
        return CaseData(self.train, self.val, self.plan, self.options, device, ranks, self.entries)

    def fit(self, trainer: pl.Trainer, task: SegmentationTask, cases: CaseData) -> None:
        """Train to the end of the budget, or go on from the last checkpoint of a resumed run.

        Raises:
            OutOfMemory: if a step needs more memory than the device has.
        """
        last = self.last if self.options.resume or self.goes_on else None
        try:
            trainer.fit(task, cases, ckpt_path=last, weights_only=True)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(self.plan, cases.device) from None


def lead(
    job: Job, network: nn.Module, device: torch.device, ranks: Ranks, phases: PhaseTimer
) -> None:
    """Train as the first process, and let the others do their part.

    A step that runs out of memory is made smaller once, where one device trains; the training then
    goes on from the last checkpoint, or begins again.

    Args:
        job: what to train.
        network: on its device.
        device: the device of this process.
        ranks: the processes that train together.
        phases: measures the time of the phases of the run.

    Raises:
        Stopped: at Ctrl-C or SIGTERM.
        OutOfMemory: if a smaller step is too large, too, or there is none.
    """
    begun = {name: weight.detach().cpu().clone() for name, weight in network.state_dict().items()}
    try:
        _lead(job, network, device, ranks, phases)
    except OutOfMemory as error:
        smaller = job.smaller(device) if ranks.size == 1 else None
        if smaller is None:
            raise
        log.warning("%s", error)
    else:
        return
    _make_room(network)
    if not smaller.goes_on:
        network.load_state_dict(begun)
    log.warning("goes on with a smaller step: %s", smaller.plan.reasons[-1])
    write_plan(smaller.folder, smaller.plan)
    _lead(smaller, network, device, ranks, phases)


def _make_room(network: nn.Module) -> None:
    """Give back what a training that was ended holds on the device."""
    network.zero_grad(set_to_none=True)
    gc.collect()  # Lightning's objects hold one another
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _lead(
    job: Job, network: nn.Module, device: torch.device, ranks: Ranks, phases: PhaseTimer
) -> None:
    """Train as `lead` does, whatever memory that takes."""
    task = job.task(network, ranks)
    cases = job.cases(device, ranks)
    if ranks.size > 1:
        cases.setup("fit")  # builds the cache, before the others look there
        _announce(job, cases, network, ranks)
    with quiet_lightning(), open_logger(job.options, job.folder) as logger:
        interrupt = Interrupt()
        trainer = make_trainer(task, job.folder, device, phases, logger, interrupt)
        try:
            job.fit(trainer, task, cases)
        except SystemExit:  # by which Lightning ends the process after a signal
            if interrupt.number is None:
                raise
            raise Stopped(interrupt.number) from None


def _announce(job: Job, cases: CaseData, network: nn.Module, ranks: Ranks) -> None:
    """Tell the other processes what to train; their working directory may be another."""
    entries = [entry.absolute() for entry in cases.entries]
    weights = {name: weight.cpu() for name, weight in network.state_dict().items()}
    ranks.shared(job.options.extensions)  # which the job may be made of
    ranks.shared(replace(job, folder=job.folder.absolute(), entries=entries, weights=weights))


def dismiss(ranks: Ranks) -> None:
    """Tell the other processes that there is nothing more to train."""
    ranks.shared(None)


def follow(ranks: Ranks, device: torch.device) -> None:
    """Train what the first process announces, until it dismisses this one.

    Raises:
        SegpipeError: if a training cannot go on.
    """
    while True:
        named = ranks.shared(None)
        if named is None:
            return
        extensions.load(named)
        job: Any = ranks.shared(None)
        _follow_one(job, ranks, device)


def _follow_one(job: Job, ranks: Ranks, device: torch.device) -> None:
    """Take this process's part in a training."""
    pl.seed_everything(job.options.seed, verbose=False)
    plan = job.plan
    network = build(job.options.model, len(plan.channels), plan.outputs, plan.strides, plan.kernels)
    network.load_state_dict(job.weights)
    if job.initial is not None:
        freeze(network, job.initial, job.options.init)
    place(network, device)
    task = job.task(network, ranks)
    cases = job.cases(device, ranks)
    with quiet_lightning():
        job.fit(make_follower(task, job.folder, device), task, cases)
