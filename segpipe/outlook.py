"""What a training on a dataset would be: its plan, and how long it would take here."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from segpipe.accelerator import tune_process
from segpipe.config.data import Data
from segpipe.config.train import Train
from segpipe.data.cases import Dataset
from segpipe.data.inspected_case import Finding, InspectedCase, usable_of
from segpipe.device import NumberFormat, choose_device, choose_format, count_devices
from segpipe.errors import DataError, SegpipeError
from segpipe.geometry import Grid
from segpipe.plan import Plan
from segpipe.planning.devices import for_devices
from segpipe.planning.fingerprint import label_ids, shared_unit
from segpipe.planning.planner import plan_dataset
from segpipe.ranks import Ranks
from segpipe.reporting.doctor_page import Outlook
from segpipe.reporting.doctor_tables import Examination
from segpipe.text import count, first_line, spoken, times
from segpipe.training.initial import open_initial
from segpipe.training.trial import forecast, try_steps

log = logging.getLogger("segpipe")


def examination(
    dataset: Dataset,
    parts: Mapping[str, Sequence[InspectedCase]],
    findings: Sequence[Finding],
    data: Data,
) -> Examination:
    """Return a dataset as the doctor has read it.

    Args:
        dataset: the dataset of the cases.
        parts: the cases of `train`, `val` and `test`.
        findings: all of them.
        data: the options of the dataset.
    """
    cases: list[InspectedCase] = []
    for part in parts.values():
        cases += usable_of(part)
    try:
        labels = label_ids(cases, dataset.labels, dataset.names) if cases else {}
    except DataError:  # no voxel is labelled, which the findings say
        labels = {}
    unit = shared_unit(cases)
    return Examination(dataset, parts, findings, labels, unit, data.root)


def foresee(
    examined: Examination, options: Train, folder: Path, overrides: Sequence[str]
) -> Outlook:
    """Plan a training on the cases that can be used, and measure a few of its steps.

    Args:
        examined: the dataset.
        options: the options of the run.
        folder: the folder of the run.
        overrides: arguments of the command line.

    Returns:
        The plan and the time; where there is none, the reason.
    """
    train = usable_of(examined.parts["train"])
    val = usable_of(examined.parts["val"])
    if not train or not val:
        side = "validate" if train else "train"
        return Outlook(problem=f"There is no plan: no case that could {side} can be used.")
    try:
        device = choose_device(options.trainer.device)
        devices = count_devices(options.trainer.device, options.trainer.devices)
        number_format = choose_format(options.trainer.precision, device)
        tune_process(device)
        options, initial = open_initial(options, folder, overrides)
        origin = initial and initial.origin
        cases = (examined.dataset, train, val)
        plan = plan_dataset(*cases, options, device, number_format, origin)
        plan = for_devices(plan, devices, options.plan.batch)
    except SegpipeError as error:
        return Outlook(problem=f"There is no plan: {first_line(error)}")
    try:
        share = plan.model_copy(update={"batch": Ranks(size=devices).patches(plan)})
        return Outlook(plan.reasons, _time(train, val, options, share, device, number_format))
    except SegpipeError as error:
        return Outlook(plan.reasons, problem=f"The time is not known: {first_line(error)}")


def _time(
    train: Sequence[InspectedCase],
    val: Sequence[InspectedCase],
    options: Train,
    plan: Plan,
    device: torch.device,
    number_format: NumberFormat,
) -> list[tuple[str, str]]:
    """Measure steps on the training case of median size, and return what follows, name and text.

    Args:
        train: training cases.
        val: validation cases.
        options: the options of the run.
        plan: the plan of the run, with the batch of one device.
        device: that trains.
        number_format: in which the network computes.
    """
    log.info("measuring a few training steps")
    by_size = sorted(train, key=lambda inspected: np.prod(_grid(inspected).shape))
    median = by_size[len(by_size) // 2].case
    trial = try_steps(median, plan, options, device, number_format)
    grids = list(map(_grid, val))
    ahead = forecast(trial, plan, options, len(train), grids)
    where = f"{plan.batch} patches of {times(plan.patch)} on {device}, {number_format}"
    log.info(
        "%.2g s a step: a run would take about %s (an estimate)",
        trial.step_s,
        spoken(ahead.total_s),
    )
    patches = f"with about {round(ahead.patches)} patches of each training case"
    return [
        ("the whole run, about", spoken(ahead.total_s)),
        ("a training step, measured", f"{trial.step_s:.2g} s: {where}"),
        ("steps, about", f"{ahead.steps:,}, {patches}"),
        ("a validation, about", f"{spoken(ahead.validation_s)}: {count(len(val), 'case')}"),
        ("preparing the training cases, about", spoken(len(train) * trial.prepare_s)),
    ]


def _grid(inspected: InspectedCase) -> Grid:
    assert inspected.grid is not None
    return inspected.grid
