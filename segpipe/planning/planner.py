"""The plan of a run: fingerprint of its cases, rules, and the device's memory, in this order."""

import logging
from collections.abc import Sequence

import torch

from segpipe.config.train import Train
from segpipe.data.cases import Dataset
from segpipe.data.inspection import InspectedCase
from segpipe.device import NumberFormat
from segpipe.plan import Plan
from segpipe.planning.fingerprint import fingerprint, label_ids
from segpipe.planning.memory import fitting_plan
from segpipe.planning.rules import make_plan

log = logging.getLogger("segpipe")


def plan_dataset(
    dataset: Dataset,
    train: Sequence[InspectedCase],
    val: Sequence[InspectedCase],
    options: Train,
    device: torch.device,
    number_format: NumberFormat,
) -> Plan:
    """Return the plan for these cases on this device.

    Raises:
        SegpipeError: if no case is labelled, given entries do not go together, or no step fits.
    """
    cases = [*train, *val]
    # the folds of a cross-validation share one plan, so that their networks can be averaged
    planned = train if options.data.fold is None else cases
    labels = label_ids(cases, dataset.labels)
    seen = fingerprint(planned)
    channels = list(dataset.channels)
    found = len(seen.zero_fraction)
    if len(channels) != found:
        channels = [f"{channels[0]} {number}" for number in range(found)]

    def make(scale: float) -> Plan:
        return make_plan(options, seen, channels, labels, device.type, scale)

    return fitting_plan(make, options, number_format, device)


def log_plan(plan: Plan) -> None:
    """Log every entry of a plan with its reason."""
    entries = [reason.partition(": ") for reason in plan.reasons]
    widest = max(len(entry) for entry, _, _ in entries)
    for entry, _, why in entries:
        log.info("  %s  %s", entry.ljust(widest), why)
