"""What becomes of a training that has run out of memory."""

import torch

from segpipe.device import usable_mib
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.text import times

SMALLER = 0.75  # of the memory that the plan counted on
GIB_IN_MIB = 1024


class OutOfMemory(ConfigError):  # noqa: N818
    """A step needed more memory than the device had."""


def out_of_memory(plan: Plan, device: torch.device) -> OutOfMemory:
    """Return the error of a step that needed more memory than the device had.

    It names the share of the memory to plan with, since a plan is kept for a whole run.
    """
    gib = SMALLER * usable_mib(device) / GIB_IN_MIB
    return OutOfMemory(
        f"the memory of {device} was too scarce for a step of {plan.batch} patches of "
        f"{times(plan.patch)}: begin a new run with plan.memory_gib={gib:.1f}, or with a smaller "
        "plan.patch, plan.batch or model.channels; or free memory that other processes hold there"
    )
