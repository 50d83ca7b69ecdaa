"""What a variant costs: size, operations, memory and time."""

from dataclasses import dataclass

import numpy as np

from segpipe.device import choose_device, choose_format
from segpipe.planning.memory import step_mib
from segpipe.stored import read_plan, read_train_options, read_yaml
from segpipe.study.sweep import SweepRun, Variant


@dataclass(frozen=True)
class Cost:
    """The cost of a variant.

    Attributes:
        variant: name of the variant.
        parameters: the parameters of its network.
        multiply_adds: for one patch.
        step_mib: memory of a training step by the memory model, MiB.
        seconds_per_step: median wall time of a step; the median over runs, s.
    """

    variant: str
    parameters: int
    multiply_adds: int
    step_mib: float
    seconds_per_step: float


def cost_of(variant: Variant[SweepRun]) -> Cost:
    """Return the cost of a variant: that of its first run, and the median time of all."""
    run = variant.first_run
    options = read_train_options(run.folder / "config.yaml", read_yaml(run.folder / "config.yaml"))
    number_format = choose_format(options.trainer.precision, choose_device(options.trainer.device))
    plan = read_plan(run.folder / "plan.yaml", run.plan)
    network = run.json("network.json")
    return Cost(
        variant.name,
        network["parameters"],
        network["multiply_adds"],
        step_mib(plan, options, number_format),
        float(np.median([run.seconds_per_step for run in variant.runs.values()])),
    )
