"""Memory that a training step needs of the device, and the plan that fits it."""

import math
from collections.abc import Callable

import torch
from torch import nn

from segpipe.config.train import Optim, Train
from segpipe.device import NumberFormat, usable_mib
from segpipe.errors import ConfigError
from segpipe.nets.describe import MIB, describe
from segpipe.plan import Plan
from segpipe.registry import OPTIMISERS
from segpipe.text import times

GIB_IN_MIB = 1024
STEP_DOWN = 0.8  # each trial has this fraction of the voxels of the last
SMALLEST_SCALE = 0.001
FLOAT32_BYTES = 4
# measured by benchmarks/memory.py: peak bytes in this format per byte that float32 keeps for the
# backward pass, and float32 values per logit that the loss holds at once
KEPT: dict[NumberFormat, float] = {"float32": 1.22, "bf16": 0.61, "fp16": 0.61}
LOSS_VALUES = 7


def fitting_plan(
    make: Callable[[float], Plan], options: Train, number_format: NumberFormat, device: torch.device
) -> Plan:
    """Return the usual plan, or one of smaller patches and batches whose step fits the memory.

    Args:
        make: returns the plan for a fraction of the usual voxels per step.
        options: the run's options.
        number_format: the format in which the network computes.
        device: the device that trains.

    Raises:
        ConfigError: if no plan fits, as where patch and batch are both given.
    """
    limit, source = _limit_mib(options, device)
    fixed = bool(options.plan.patch and options.plan.batch)
    scale = 1.0
    plan = make(scale)
    needed = step_mib(plan, options, number_format)
    while needed > limit:
        scale *= STEP_DOWN
        if fixed or scale < SMALLEST_SCALE:
            raise ConfigError(
                f"plan: a step of {plan.batch} patches of {times(plan.patch)} needs about "
                f"{needed:.0f} MiB, but {limit:.0f} MiB may be used: give a smaller plan.patch or "
                "plan.batch, or smaller model.channels"
            )
        plan = make(scale)
        needed = step_mib(plan, options, number_format)
    shrunk = "" if scale == 1 else ", for which patch or batch were made smaller"
    reason = f"memory about {needed:.0f} of {limit:.0f} MiB: {source}{shrunk}"
    return plan.model_copy(update={"reasons": [*plan.reasons, reason]})


def _limit_mib(options: Train, device: torch.device) -> tuple[float, str]:
    """Return the memory that a step may need, in MiB, and where that number comes from."""
    given = options.plan.memory_gib
    if given is not None:
        return given * GIB_IN_MIB, "plan.memory_gib"
    return usable_mib(device), str(device)


def step_mib(plan: Plan, options: Train, number_format: NumberFormat) -> float:
    """Return the peak memory of a training step, in MiB, without Python and its libraries.

    Counted are weights, gradients, the optimiser's state and the running mean of the weights; the
    activations that are kept for the backward pass; and what the loss computes from the logits.
    The workspace of convolutions is not counted.
    """
    patch = plan.network_patch
    stages = describe(
        options.model, len(plan.channels), plan.outputs, plan.strides, plan.kernels, patch
    )
    copies = 2 + state_per_weight(options.optim) + (options.optim.ema is not None)
    weights = copies * FLOAT32_BYTES * sum(stage.parameters for stage in stages) / MIB
    kept = KEPT[number_format] * sum(stage.saved_mib for stage in stages)
    logits = plan.outputs * math.prod(patch) * FLOAT32_BYTES / MIB
    return weights + plan.batch * (kept + LOSS_VALUES * logits)


def state_per_weight(options: Optim) -> int:
    """Return how many values per weight the optimiser keeps, as one step on one weight shows.

    Raises:
        ConfigError: if no optimiser of that name is registered.
    """
    weight = nn.Parameter(torch.zeros(1, 1))
    weight.grad = torch.ones_like(weight)
    optimiser = OPTIMISERS[options.name]([{"params": [weight], "weight_decay": 0.0}], options)
    optimiser.step()
    values = 0
    for state in optimiser.state[weight].values():
        if isinstance(state, torch.Tensor) and state.shape == weight.shape:
            values += 1
    return values
