"""What a training step needs of the device's memory, and the plan that fits it."""

from collections.abc import Callable

import torch

from segpipe.config.train import Train
from segpipe.device import NumberFormat, usable_mib
from segpipe.errors import ConfigError
from segpipe.nets.describe import MIB, describe
from segpipe.plan import Plan

GIB = 2**30
SMALLER = 0.8  # each trial has this share of the voxels of the last
LEAST = 0.001
# measured by benchmarks/memory.py: bytes at the peak, in this format, per byte that float32 keeps for the backward
# pass, and values of float32 per logit that the loss has at once
KEPT: dict[NumberFormat, float] = {"float32": 1.22, "bf16": 0.61, "fp16": 0.61}
LOSS_VALUES = 7


def fitting_plan(
    make: Callable[[float], Plan], options: Train, number_format: NumberFormat, device: torch.device
) -> Plan:
    """The plan whose training step fits the memory: the usual one, or one of smaller batches and patches.

    Args:
        make: the plan for a share of the usual voxels a step.
        options: of the run.
        number_format: in which the network computes.
        device: where.

    Raises:
        ConfigError: if none fits, as where patch and batch are both given.
    """
    given = options.plan.memory_gib
    limit, whose = (given * 1024, "plan.memory_gib") if given else (usable_mib(device), str(device))
    share, plan = 1.0, make(1.0)
    while (needed := step_mib(plan, options, number_format)) > limit:
        share *= SMALLER
        if share < LEAST or (options.plan.patch and options.plan.batch):
            size = "x".join(map(str, plan.patch))
            raise ConfigError(
                f"plan: a step of {plan.batch} patches of {size} needs about {needed:.0f} MiB, "
                f"but {limit:.0f} MiB may be used: give a smaller plan.patch or plan.batch, or smaller model.channels"
            )
        plan = make(share)
    short = "" if share == 1 else ", for which patch or batch were made smaller"
    line = f"memory about {needed:.0f} of {limit:.0f} MiB: {whose}{short}"
    return plan.model_copy(update={"reasons": [*plan.reasons, line]})


def step_mib(plan: Plan, options: Train, number_format: NumberFormat) -> float:
    """The most that a training step needs, in MiB, beside what Python and its libraries take.

    Weights, gradients, the optimiser's means and the running mean of the weights; the activations that are kept for
    the backward pass; and what the loss computes from the logits. Convolutions' own workspace is not in it.
    """
    patch = plan.network_patch
    stages = describe(
        options.model, len(plan.channels), plan.outputs, plan.strides, plan.kernels, patch
    )
    copies = 2 + (2 if options.optim.name == "adamw" else 1) + (options.optim.ema is not None)
    weights = copies * 4 * sum(stage.parameters for stage in stages) / MIB
    kept = KEPT[number_format] * sum(stage.saved_mib for stage in stages)
    logits = plan.outputs * float(torch.tensor(patch).prod()) * 4 / MIB
    return weights + plan.batch * (kept + LOSS_VALUES * logits)
