"""Memory that a training step needs of the device, and the plan that fits it."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from segpipe.config.train import Optim, Train
from segpipe.device import USABLE, NumberFormat, usable_mib
from segpipe.errors import ConfigError
from segpipe.nets.describe import MIB, Stage, describe
from segpipe.plan import Plan
from segpipe.planning.capacity import planned_model
from segpipe.planning.parts import as_asked, last_resorts
from segpipe.registry import OPTIMISERS
from segpipe.text import times

GIB_IN_MIB = 1024
STEP_DOWN = 0.8  # each trial has this fraction of the voxels of the last
SMALLEST_SCALE = 0.001
FLOAT32_BYTES = 4
# peak bytes in this format per byte that float32 keeps for the backward pass: of the CPU measured
# by benchmarks/memory.py; of a GPU the same until benchmarks/gpu.py has measured them
KEPT: dict[str, dict[NumberFormat, float]] = {
    "cpu": {"float32": 1.22, "bf16": 0.61, "fp16": 0.61},
    "cuda": {"float32": 1.22, "bf16": 0.61, "fp16": 0.61},
}
LOSS_VALUES = 7  # float32 values per logit that the loss holds at once, measured likewise
WORKSPACE_MIB = {"cpu": 0, "cuda": 1024}  # CUDA's context and cuDNN's workspace; not measured yet
# a GPU computes a step in parts rather than shrink it further
MODEST_SCALE = 0.25


def fitting_plan(
    make: Callable[[float], Plan], options: Train, number_format: NumberFormat, device: torch.device
) -> Plan:
    """Return the usual plan, or one whose step fits the memory.

    Patches and batches are made smaller, on a GPU down to a quarter of the usual voxels. Then, or
    where patch and batch are given, a step is computed in parts whose gradients are added, and
    activations are computed again for the backward pass.

    Args:
        make: returns the plan for a fraction of the usual voxels per step.
        options: the run's options.
        number_format: the format in which the network computes.
        device: the device that trains.

    Raises:
        ConfigError: if no plan fits, or a given batch cannot be computed in the given parts.
    """
    limit, source = limit_mib(options, device)
    needed = math.inf
    plan = None
    for plan in _trials(make, options, device):
        needed = step_mib(plan, options, number_format, device.type)
        if needed <= limit:
            how = _how(plan, as_asked(make(1.0), options))
            reason = f"memory about {needed:.0f} of {limit:.0f} MiB: {source}{how}"
            return plan.model_copy(update={"reasons": [*plan.reasons, reason]})
    assert plan is not None
    raise ConfigError(
        f"plan: a step of {plan.batch} patches of {times(plan.patch)} needs about "
        f"{needed:.0f} MiB, but {limit:.0f} MiB may be used: give a smaller plan.patch or "
        "plan.batch, or smaller model.channels"
    )


def _trials(make: Callable[[float], Plan], options: Train, device: torch.device) -> Iterator[Plan]:
    """Yield plans that need ever less memory."""
    fixed = bool(options.plan.patch and options.plan.batch)
    lowest = SMALLEST_SCALE if device.type == "cpu" else MODEST_SCALE
    scale = 1.0
    plan = as_asked(make(scale), options)
    yield plan
    while not fixed and scale * STEP_DOWN >= lowest:
        scale *= STEP_DOWN
        plan = as_asked(make(scale), options)
        yield plan
    yield from last_resorts(plan, options)
    while not fixed and scale * STEP_DOWN >= SMALLEST_SCALE:
        scale *= STEP_DOWN
        *_, plan = [plan, *last_resorts(as_asked(make(scale), options), options)]
        yield plan


def _how(plan: Plan, usual: Plan) -> str:
    """Return what was done to make a plan fit."""
    done = []
    if (plan.patch, plan.batch) != (usual.patch, usual.batch):
        done.append("patch or batch were made smaller")
    if plan.parts > 1:
        done.append(f"a step is computed in {plan.parts} parts")
    if plan.recompute:
        done.append("activations are computed again for the backward pass")
    return f", for which {', and '.join(done)}" if done else ""


def smaller_plan(
    plan: Plan, options: Train, number_format: NumberFormat, kind: str, share: float
) -> Plan | None:
    """Return the plan computed in parts, or with activations computed again; None where none helps.

    The network learns the same from it: patch, batch and network stay.

    Args:
        plan: the plan of a run that was short of memory.
        options: the options of the run.
        number_format: the number format in which the network computes.
        kind: the kind of the device, `cpu` or `cuda`.
        share: the most that the new plan may need, as a share of the memory of that run's step.
    """
    most = share * step_mib(plan, options, number_format, kind)
    for trial in last_resorts(plan, options):
        if step_mib(trial, options, number_format, kind) <= most:
            reason = f"step in {trial.parts} parts: memory was too scarce{_how(trial, trial)}"
            return trial.model_copy(update={"reasons": [*plan.reasons, reason]})
    return None


def limit_mib(options: Train, device: torch.device) -> tuple[float, str]:
    """Return the memory that a step may need, in MiB, and where that number comes from."""
    given = options.plan.memory_gib
    if given is not None:
        return given * GIB_IN_MIB, "plan.memory_gib"
    return usable_mib(device), str(device)


def device_gib(options: Train, device: torch.device) -> float:
    """Return the memory of the device of which a step may use its usual share, in GiB."""
    limit, _ = limit_mib(options, device)
    return limit / USABLE[device.type] / GIB_IN_MIB


def step_mib(plan: Plan, options: Train, number_format: NumberFormat, kind: str = "cpu") -> float:
    """Return the peak memory of a training step, in MiB, without Python and its libraries.

    Counted are weights, gradients, the optimiser's state and the running mean of the weights; the
    activations that are kept for the backward pass; and what the loss computes from the logits.
    The workspace of convolutions is not counted, but for an allowance on a GPU.

    Args:
        plan: the plan of the run.
        options: the options of the run.
        number_format: the number format in which the network computes.
        kind: the kind of the device, `cpu` or `cuda`.
    """
    patch = plan.network_patch
    model = planned_model(options.model, plan)
    shape = (len(plan.channels), plan.outputs, plan.strides, plan.kernels)
    stages = describe(model, *shape, patch)
    copies = 2 + state_per_weight(options.optim) + (options.optim.ema is not None)
    weights = copies * FLOAT32_BYTES * sum(stage.parameters for stage in stages) / MIB
    kept = KEPT[kind][number_format] * _kept_mib(stages, plan.recompute)
    logits = plan.outputs * math.prod(patch) * FLOAT32_BYTES / MIB
    patches = plan.batch // plan.parts
    return WORKSPACE_MIB[kind] + weights + patches * (kept + LOSS_VALUES * logits)


def _kept_mib(stages: Sequence[Stage], recompute: bool) -> float:
    """Return what is kept of a patch for the backward pass, MiB of float32.

    Where activations are computed again, that is the output of each stage, and all of one stage.
    """
    saved = [stage.saved_mib for stage in stages]
    if not recompute:
        return sum(saved)
    outputs = [stage.channels * math.prod(stage.size) * FLOAT32_BYTES / MIB for stage in stages]
    return sum(outputs) + max(saved)


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
