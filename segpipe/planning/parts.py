"""Steps that are computed in parts, and activations that are computed again: time for memory."""

from collections.abc import Iterator

from segpipe.config.model import Model
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.plan import Plan


def as_asked(plan: Plan, options: Train) -> Plan:
    """Return a plan with the parts and the recomputation that are given, a batch in even parts.

    Raises:
        ConfigError: if a given batch cannot be computed in the given parts.
    """
    parts = options.trainer.accumulate or 1
    batch = -(-plan.batch // parts) * parts
    if batch != plan.batch and options.plan.batch is not None:
        raise ConfigError(
            f"trainer.accumulate={parts}: plan.batch={plan.batch} is no multiple of it"
        )
    asked = {"batch": batch, "parts": parts, "recompute": bool(options.trainer.recompute)}
    return plan.model_copy(update=asked)


def last_resorts(plan: Plan, options: Train) -> Iterator[Plan]:
    """Yield the plan computed in ever more parts, then with activations computed again.

    What is given stays as it is; of networks that would learn something else, nothing is changed.

    Args:
        plan: the plan of the run.
        options: the options of the run.
    """
    trainer = options.trainer
    numbers = []
    if trainer.accumulate is None and trainer.devices == 1 and trainer.nodes == 1:
        for number in range(plan.parts + 1, plan.batch + 1):
            if plan.batch % number == 0:
                numbers.append(number)
    for number in numbers:
        yield plan.model_copy(update={"parts": number})
    if trainer.recompute is not None or plan.recompute or not can_recompute(options):
        return
    for number in (plan.parts, *numbers):
        yield plan.model_copy(update={"parts": number, "recompute": True})


def can_recompute(options: Train) -> bool:
    """Return whether activations can be computed again: a batch norm would count them twice."""
    return isinstance(options.model, Model) and options.model.norm != "batch"
