"""The plan of a run, from the fingerprint of its cases, rules, and the device's memory."""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch

from segpipe.config.model import Model
from segpipe.config.train import Train
from segpipe.data.cases import Dataset
from segpipe.data.inspected_case import InspectedCase
from segpipe.device import NumberFormat
from segpipe.plan import Plan
from segpipe.planning.capacity import usual_skips
from segpipe.planning.fingerprint import Fingerprint, fingerprint, label_ids
from segpipe.planning.inherited import Origin, inherit_plan, warn_of_changes
from segpipe.planning.memory import device_gib, fitting_plan
from segpipe.planning.pace import Pace
from segpipe.planning.rules import make_plan
from segpipe.regions import misshown

Facts = tuple[Fingerprint, list[str], dict[str, int]]  # of the cases: also channels and labels
log = logging.getLogger("segpipe")
_last: list[str] = []  # the reasons of the plan that was logged last


def plan_dataset(
    dataset: Dataset,
    train: Sequence[InspectedCase],
    val: Sequence[InspectedCase],
    options: Train,
    device: torch.device,
    number_format: NumberFormat,
    origin: Origin | None = None,
) -> Plan:
    """Return the plan for these cases on this device.

    Args:
        dataset: the dataset of the cases.
        train: training cases.
        val: validation cases.
        options: the run's options.
        device: the device that trains.
        number_format: the number format in which the network computes.
        origin: the plan of the checkpoint that the run starts from; None where there is none.

    Raises:
        SegpipeError: if no case is labelled, given entries do not go together, or no step fits.
    """
    cases = [*train, *val]
    # the folds of a cross-validation share one plan, so that their networks can be averaged
    planned = train if options.data.fold is None else cases
    labels = label_ids(cases, dataset.labels, dataset.names)
    common = fingerprint(planned)
    channels = _channel_names(dataset.channels, len(common.zero_fraction))

    pace = cache(partial(Pace.of, options, number_format, len(channels), len(common.labels)))

    facts = (common, channels, labels)
    if origin is None:
        plan = _new_plan(options, facts, device, number_format, pace)
    else:
        inherited = partial(inherit_plan, origin, options, *facts)
        plan = fitting_plan(inherited, options, number_format, device)
    if origin is not None:
        warn_of_changes(origin, options, plan)
    _warn_of_painting(plan)
    return plan


def _new_plan(
    options: Train,
    facts: Facts,
    device: torch.device,
    number_format: NumberFormat,
    pace: Callable[[], Pace | None],
) -> Plan:
    """Return a plan that comes from no checkpoint.

    A network that is planned for a GPU is sized with the usual skips, so that all variants of skips
    have one size, whatever memory they need; then patch and batch are made to fit.
    """
    memory_gib = device_gib(options, device)
    model = options.model
    network = None
    if device.type == "cuda" and isinstance(model, Model) and model.channels is None:
        usual = options.model_copy(update={"model": usual_skips(model)})
        network = fitting_plan(
            partial(_made, usual, facts, device, memory_gib, None, pace),
            usual,
            number_format,
            device,
        )
        if usual.model == model:
            return network
    make = partial(_made, options, facts, device, memory_gib, network, pace)
    return fitting_plan(make, options, number_format, device)


def _made(
    options: Train,
    facts: Facts,
    device: torch.device,
    memory_gib: float,
    network: Plan | None,
    pace: Callable[[], Pace | None],
    scale: float,
) -> Plan:
    return make_plan(options, *facts, device.type, scale, memory_gib, network, pace)


def _warn_of_painting(plan: Plan) -> None:
    """Log what each region paints, and the labels of which a mask shows other regions."""
    if plan.regions is None or plan.paint is None:
        return
    names = list(plan.labels)
    ids = list(plan.labels.values())
    painted = [f"{name} {ids[index]}" for name, index in plan.paint.items()]
    log.info("a mask shows the regions as the ids: %s", ", ".join(painted))
    for index, shown in misshown(plan.regions, plan.paint).items():
        log.warning(
            "a mask cannot show all regions: voxels of %s (id %d) are painted as %d, which is in "
            "other regions; give data.paint={REGION:ID}, or other data.regions",
            names[index],
            ids[index],
            ids[shown],
        )


def _channel_names(declared: Sequence[str], number: int) -> list[str]:
    """Return a name per channel: as declared, or else the first name with a number."""
    if len(declared) == number:
        return list(declared)
    return [f"{declared[0]} {index}" for index in range(number)]


def log_plan(plan: Plan) -> None:
    """Log every entry of a plan with its reason.

    The terminal shows a plan once, though runs of a sweep that have one in common follow one
    another; the log file of each run has all of it.
    """
    global _last
    is_shown = plan.reasons == _last
    _last = list(plan.reasons)
    if is_shown:
        log.info("  the plan is that of the run before")
    rows = []
    width = 0
    for reason in plan.reasons:
        entry, _, why = reason.partition(": ")
        rows.append((entry, why))
        width = max(width, len(entry))
    for entry, why in rows:
        log.info("  %s  %s", entry.ljust(width), why, extra={"shown": is_shown})
