"""The memory of a forward pass without gradients, measured by running it."""

import copy
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SMALL = 48**3  # voxels of a window that is computed quickly
# voxels above which the window is run on the meta device, without values; for that, torch imports
# its compiler, which takes a second
LARGE = 64**3


class _LiveBytes(TorchDispatchMode):
    """A count of the bytes of all live tensors, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self.counted: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: True would make torch import its compiler, though nothing is compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count the tensors that it allocates."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        self.peak = max(self.peak, self.current)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self.counted:
            return
        self.counted.add(storage)
        self.current += storage.nbytes()
        weakref.finalize(storage, self._release, storage.nbytes())

    def _release(self, size: int) -> None:
        self.current -= size


def forward_bytes(
    network: nn.Module, window: Sequence[int], steps: Sequence[int] | None = None
) -> int:
    """Return the peak of the bytes of float32 that one window needs, without the weights.

    Convolutions' own workspace is not included.

    Args:
        network: the network that predicts the window.
        window: `(C, *spatial)`.
        steps: what the network needs each edge to be a multiple of. With them a large window is
            measured on one of half its edges, or of a quarter, and so on: the peak grows in
            proportion to the voxels.
    """
    channels, *full = window
    size = list(full)
    while steps and math.prod(size) > SMALL:
        axis = _axis_to_halve(size, steps)
        if axis is None:
            break
        size[axis] //= 2
    device = "cpu" if math.prod(size) <= LARGE else "meta"
    trial = copy.deepcopy(network).to(device).eval()
    with torch.no_grad(), _LiveBytes() as live:
        trial(torch.zeros(1, channels, *size, device=device))
    return live.peak * math.prod(full) // math.prod(size)


def _axis_to_halve(size: Sequence[int], steps: Sequence[int]) -> int | None:
    """Return the longest axis that leaves at least two voxels at the coarsest level when halved.

    A norm needs more than one voxel there. None where no axis can be halved.
    """
    candidates = []
    for axis, (edge, step) in enumerate(zip(size, steps, strict=True)):
        if edge % (4 * step) == 0:
            candidates.append(axis)
    return max(candidates, key=lambda axis: size[axis], default=None)
