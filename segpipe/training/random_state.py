"""The random states of a training, from which a resumed one goes on: the CPU's, and its GPU's."""

from collections.abc import Sequence

import torch
from torch import Tensor


def random_states(device: torch.device) -> list[Tensor]:
    """Return the state of the CPU's generator, and of that of the device if it is a GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def restore_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Set the generators of the CPU and of a device to stored states.

    Args:
        states: the CPU's, then those of GPUs: the run's own, or in checkpoints of earlier versions
            all that it saw, of which it used the first.
        device: the device that trains now. A GPU keeps its state where the run was on the CPU.
    """
    cpu, *gpus = states
    torch.set_rng_state(cpu.cpu())
    if device.type == "cuda" and gpus:
        torch.cuda.set_rng_state(gpus[0].cpu(), device)
