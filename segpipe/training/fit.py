"""One run from config to scored masks; the story of `python train.py`, top to bottom."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, Timer
from pytorch_lightning.loggers import Logger

from segpipe import checkpoint, nets
from segpipe.checkpoint import TrainedOn
from segpipe.config.train import Train
from segpipe.data.cases import Case, Dataset
from segpipe.data.examine import Examined
from segpipe.data.fingerprint import content_of, fingerprint, label_ids
from segpipe.data.module import CaseData
from segpipe.data.prepare import read_labels
from segpipe.device import NumberFormat, choose_device, choose_format
from segpipe.files import write_text
from segpipe.metrics import Score, score_case, write_scores
from segpipe.plan import Plan, make_plan
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.show import draw_prediction, show_scores
from segpipe.report.plots import draw_curves
from segpipe.terminal import progress_bar
from segpipe.training.budget import Budget
from segpipe.training.cases import examine_dataset, open_dataset, refuse_errors, split_dataset
from segpipe.training.cost import Cost
from segpipe.training.gradient_flow import GradientFlow
from segpipe.training.history import History
from segpipe.training.loggers import check as check_logger
from segpipe.training.loggers import open_logger
from segpipe.training.memory import fitting_plan
from segpipe.training.network import make_network, show_network
from segpipe.training.progress import RunProgress
from segpipe.training.provenance import environment
from segpipe.training.task import SegmentationTask

log = logging.getLogger("segpipe")
OVERLAYS = 6  # pictures: the worst and the best cases


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
    number_format = choose_format(options.trainer.precision, device)
    nets.check(options.model)
    check_logger(options.logger)
    _quieten_libraries()
    pl.seed_everything(options.seed, verbose=False)

    dataset = open_dataset(options.data)
    train, val = split_dataset(dataset, options, folder)
    cases = examine_dataset(dataset, train, val, options.data, folder)
    refuse_errors(cases)
    plan = _plan(dataset, cases, train, options, device, number_format)
    options, network = make_network(options, plan, folder)
    if options.model.describe:
        return show_network(folder / "network.json", plan)
    _record(folder, options, plan, overrides)
    log.info("training on %s in %s", device, number_format)
    data = TrainedOn(dataset.name, content_of(cases), len(train), len(val))
    task = SegmentationTask(network, plan, options, Budget.of(options.trainer), number_format, data)
    resume = folder / "checkpoints" / "last.ckpt" if options.resume else None
    with open_logger(options, folder) as logger:
        trainer = _trainer(options, task.budget, folder, device, number_format, logger)
        trainer.fit(task, CaseData(train, val, plan, options, device), ckpt_path=resume, weights_only=True)

    score(folder, val, device, number_format)


def _quieten_libraries() -> None:
    """Leaves out Lightning's banner, and a warning that it gives of its own call into torch."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)


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
    link = runs / f".latest-{os.getpid()}"
    link.symlink_to(os.path.relpath(folder.absolute(), runs))
    os.replace(link, runs / "latest")


def _trainer(
    options: Train, budget: Budget, folder: Path, device: torch.device, number_format: NumberFormat, logger: Logger
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
        RunProgress(),
        Cost(folder),
        History(folder / "metrics.csv"),
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
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def score(folder: Path, cases: Sequence[Case], device: torch.device, number_format: NumberFormat) -> None:
    """Scores a run's best checkpoint on whole scans: `validation.csv`, `overlays/`, `curves.png` and a table.

    Raises:
        SegpipeError: if the run has no checkpoint, or a case cannot be read.
    """
    trained = checkpoint.load(folder)
    predictor = Predictor(trained.network.to(device), trained.plan, device, number_format)
    names, targets = list(trained.plan.labels)[1:], trained.plan.targets
    scores: list[Score] = []
    with progress_bar() as bar:
        scoring = bar.add_task("scoring", total=len(cases), note="")
        for case in cases:
            prediction = predictor(case.images)
            truth = read_labels(case, trained.plan, prediction.grid).numpy()[0]
            scores += score_case(case.name, prediction.labels, truth, prediction.grid.spacing_mm, targets)
            bar.advance(scoring)
    write_scores(scores, folder / "validation.csv")
    draw_curves(folder / "metrics.csv", folder / "curves.png")
    for case in _worst_and_best(cases, scores):
        prediction = predictor(case.images)
        truth = read_labels(case, trained.plan, prediction.grid).numpy()[0]
        draw_prediction(prediction, truth, names, case.name, folder / "overlays" / f"{case.name}.png")
    show_scores(scores, f"{len(cases)} validation cases")
    log.info("run: %s (curves.png, overlays/, validation.csv, checkpoints/best.ckpt)", folder)


def _worst_and_best(cases: Sequence[Case], scores: Sequence[Score]) -> list[Case]:
    dice = {case.name: [score.dice for score in scores if score.case == case.name] for case in cases}
    ranked = sorted(cases, key=lambda case: float(np.nan_to_num(np.mean(dice[case.name]))))
    return ranked if len(ranked) <= OVERLAYS else [*ranked[: OVERLAYS // 2], *ranked[-OVERLAYS // 2 :]]
