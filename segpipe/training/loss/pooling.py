"""Sums over the patches of a whole batch, wherever they are: here, or on other devices too.

A loss that is computed from such sums is the same on every device, and trains as it would on one.
"""

from typing import Any

import torch
from monai.losses.utils import compute_tp_fp_fn
from torch import Tensor, distributed

SMOOTH = 1e-5  # voxels, as MONAI has it


def pooled(values: Tensor) -> Tensor:
    """Return sums over this device's patches as sums over those of all devices.

    What is computed from them must be the same on every device, as it is where nothing else enters:
    then no gradient needs to travel. Without other devices, the values themselves are returned.
    """
    if _devices() == 1:
        return values
    result: Tensor = _Pooled.apply(values)  # pyright: ignore[reportAssignmentType]
    return result


def mean_over_devices(value: Tensor) -> Tensor:
    """Return the mean of a value over all devices."""
    return pooled(value) / _devices() if _devices() > 1 else value


def ratio_of_means(above: Tensor, below: Tensor, smallest: float) -> Tensor:
    """Return the ratio of two means over as many values on each device, over all devices.

    Args:
        above: one mean.
        below: the other.
        smallest: what the other counts as where it is less.
    """
    above, below = mean_over_devices(torch.stack([above, below]))
    return above / below.clamp(min=smallest)


def gathered(values: Tensor) -> Tensor:
    """Return the values of all devices, shape `(n,)`, where they may have different numbers.

    Only this device's part has a gradient, which `pooled` explains.
    """
    if _devices() == 1:
        return values
    number = torch.tensor([values.numel()], device=values.device)
    numbers = [torch.zeros_like(number) for _ in range(_devices())]
    distributed.all_gather(numbers, number)
    counts = [int(count) for count in numbers]
    before = sum(counts[: distributed.get_rank()])
    behind = sum(counts) - before - values.numel()
    return pooled(torch.nn.functional.pad(values.flatten(), (before, behind)))


def hits_and_errors(
    probabilities: Tensor, truth: Tensor, decoupled: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hits, false alarms and misses of each channel, `(K,)` each, over the whole batch.

    Args:
        probabilities: shape `(B, K, *spatial)`.
        truth: 0 or 1, of the same shape.
        decoupled: the same switch as in MONAI's `compute_tp_fp_fn`: Dice takes it, Tversky does
            not.
    """
    axes = [0, *range(2, truth.ndim)]
    counts = compute_tp_fp_fn(probabilities, truth, axes, 1, False, decoupled)
    hits, false_alarms, misses = pooled(torch.stack(counts))
    return hits, false_alarms, misses


def _devices() -> int:
    """Return how many devices share a batch."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


class _Pooled(torch.autograd.Function):
    """The sum over all devices.

    Each of N devices computes the same loss from the sum, so its gradient is N times that of the
    loss; DDP, which averages the gradients of the weights, takes the N away again.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient * _devices()
