"""One run from config to scored masks; the story of `python train.py`, top to bottom."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, Timer
from pytorch_lightning.loggers import Logger

from segpipe import nets
from segpipe.checkpoint import TrainedOn
from segpipe.config.train import Train
from segpipe.data.cases import Case, Dataset
from segpipe.data.examine import Examined
from segpipe.data.fingerprint import content_of, facts, fingerprint, label_ids
from segpipe.data.module import CaseData
from segpipe.device import NumberFormat, choose_device, choose_format, hold_memory
from segpipe.files import write_text
from segpipe.plan import Plan, make_plan
from segpipe.terminal import near, show_next
from segpipe.training.budget import Budget
from segpipe.training.cases import examine_dataset, open_dataset, refuse_errors, split_dataset
from segpipe.training.cost import Cost
from segpipe.training.gradient_flow import GradientFlow
from segpipe.training.history import History
from segpipe.training.interrupt import Interrupt
from segpipe.training.loggers import check as check_logger
from segpipe.training.loggers import open_logger
from segpipe.training.memory import fitting_plan
from segpipe.training.network import make_network, show_network
from segpipe.training.page import reported, write_facts
from segpipe.training.progress import RunProgress
from segpipe.training.provenance import environment
from segpipe.training.scoring import score
from segpipe.training.stages import PREPARING, Stages
from segpipe.training.task import SegmentationTask

log = logging.getLogger("segpipe")


def fit(options: Train, folder: Path, overrides: Sequence[str]) -> None:
    """Trains one network and scores its best checkpoint on the validation cases, in their native geometry.

    Args:
        options: the run's options.
        folder: the run's folder, which is filled.
        overrides: what was typed, for the record.

    Raises:
        SegpipeError: if the options or a case cannot be used.
    """
    device = choose_device(options.trainer.device)
    hold_memory(device)
    number_format = choose_format(options.trainer.precision, device)
    nets.check(options.model)
    check_logger(options.logger)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # leaves out its banner
    pl.seed_everything(options.seed, verbose=False)

    dataset = open_dataset(options.data)
    train, val = split_dataset(dataset, options, folder)
    stages = Stages(folder)
    with stages.stage("reading cases"):
        cases = examine_dataset(dataset, train, val, options.data, folder)
    refuse_errors(cases)
    with stages.stage("planning"):
        plan = _plan(dataset, cases, train, options, device, number_format)
        options, network = make_network(options, plan, folder)
    if options.model.describe:
        return show_network(folder / "network.json", plan)
    _record(folder, options, plan, overrides)
    write_facts(folder, facts(cases[: len(train)], cases[len(train) :], plan.labels, plan.channels))
    log.info("training on %s in %s", device, number_format)
    data = TrainedOn(dataset.name, content_of(cases), len(train), len(val))
    task = SegmentationTask(network, plan, options, Budget.of(options.trainer), number_format, data)
    resume = folder / "checkpoints" / "last.ckpt" if options.resume else None
    with reported(folder, stages) as report, _without_lightnings_own_warning():
        with stages.stage(PREPARING), open_logger(options, folder) as logger:
            trainer = _trainer(options, task.budget, folder, device, number_format, stages, logger)
            trainer.fit(task, CaseData(train, val, plan, options, device), ckpt_path=resume, weights_only=True)
        with stages.stage("scoring and drawing"):
            report.shelf = score(folder, val, device, number_format, options.page)
    show_next(
        [
            ("report", near(folder / "report.html")),
            ("network", near(folder / "checkpoints" / "best.ckpt")),
            ("predict", f"python predict.py checkpoint={near(folder)} input=SCANS output=MASKS"),
        ]
    )


@contextmanager
def _without_lightnings_own_warning() -> Iterator[None]:
    """Leaves out a warning that Lightning gives of its own call into torch, and nothing else, while it runs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        yield


def _plan(
    dataset: Dataset,
    cases: Sequence[Examined],
    train: Sequence[Case],
    options: Train,
    device: torch.device,
    number_format: NumberFormat,
) -> Plan:
    # the folds of a cross-validation share one plan, without which their networks could not be averaged
    planned = cases[: len(train)] if options.data.fold is None else cases
    labels, seen = label_ids(cases, dataset.labels), fingerprint(planned)
    names = dataset.channels
    if len(names) != len(seen.void):
        names = tuple(f"{names[0]} {place}" for place in range(len(seen.void)))
    plan = fitting_plan(
        lambda share: make_plan(options, seen, list(names), labels, device.type, share), options, number_format, device
    )
    log.info(
        "%s: %d cases train, %d validate; labels %s",
        dataset.name,
        len(train),
        len(cases) - len(train),
        ", ".join(list(labels)[1:]),
    )
    entries = [reason.partition(": ") for reason in plan.reasons]
    widest = max(len(entry) for entry, _, _ in entries)
    for entry, _, why in entries:
        log.info("  %s  %s", entry.ljust(widest), why)
    return plan


def _record(folder: Path, options: Train, plan: Plan, overrides: Sequence[str]) -> None:
    write_text(folder / "config.yaml", yaml.safe_dump(options.model_dump(mode="json"), sort_keys=False))
    write_text(folder / "plan.yaml", yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False))
    write_text(folder / "environment.json", environment(overrides))
    runs = next((parent for parent in folder.absolute().parents if parent.name == "runs"), folder.absolute().parent)
    latest = runs / "latest"
    if latest.is_dir() and not latest.is_symlink():
        log.warning("%s is a folder, as a copy of runs/ has, and no link: it is left as it is", latest)
        return
    link = runs / f".latest-{os.getpid()}"
    link.symlink_to(os.path.relpath(folder.absolute(), runs))
    os.replace(link, latest)


def _trainer(
    options: Train,
    budget: Budget,
    folder: Path,
    device: torch.device,
    number_format: NumberFormat,
    stages: Stages,
    logger: Logger,
) -> pl.Trainer:
    checks: Any = options.trainer.validations
    interval = max(1, budget.steps // checks) if budget.steps else budget.time and budget.time / checks
    keep: dict[str, Any] = {"dirpath": folder / "checkpoints", "enable_version_counter": False}
    mean = [] if options.optim.ema is None else [EMAWeightAveraging(decay=options.optim.ema)]
    flow = [GradientFlow(folder, options.trainer.steps_per_epoch)] if options.trainer.gradient_flow else []
    callbacks = [
        Timer(),
        *mean,
        *flow,
        Interrupt(),
        RunProgress(),
        Cost(folder),
        stages,
        History(folder),
        ModelCheckpoint(filename="best", monitor="dice/mean", mode="max", save_on_train_epoch_end=False, **keep),
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **keep),
    ]
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision={"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[number_format],  # type: ignore[arg-type]
        max_epochs=-1,
        val_check_interval=interval,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=options.optim.clip,
        callbacks=callbacks,
        logger=logger,
        log_every_n_steps=min(10, options.trainer.steps_per_epoch),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
