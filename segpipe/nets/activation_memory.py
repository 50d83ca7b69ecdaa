"""What a forward pass without gradients needs of the memory: found by running it, a large window without data."""

import copy
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SMALL = 48**3  # voxels of a window that is quickly computed
LARGE = (
    64**3
)  # voxels; beyond, torch computes without data, for which it imports a compiler for a second


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that live, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, but torch would import its compiler, which takes longer than torch itself."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation and counts what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if (
                isinstance(tensor, Tensor)
                and (storage := tensor.untyped_storage()) not in self.known
            ):
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, count: int) -> None:
        self.now -= count


def forward_bytes(
    network: nn.Module, window: Sequence[int], steps: Sequence[int] | None = None
) -> int:
    """The most bytes of float32 that live at once while the network sees one window, weights left out.

    Convolutions' own workspace is not in it, nor is a format of fewer bytes.

    Args:
        network: that sees it.
        window: `(c, *space)`.
        steps: along each axis of space, of what the network needs a multiple; then a large window is counted on one of
            half its edges, or of a quarter, and so on: what lives grows with the voxels.
    """
    channels, *space = window
    while steps and math.prod(space) > SMALL and (halved := _halved(space, steps)):
        space = halved
    device = "cpu" if math.prod(space) <= LARGE else "meta"
    trial = copy.deepcopy(network).to(device).eval()
    with torch.no_grad(), _Living() as living:
        trial(torch.zeros(1, channels, *space, device=device))
    return living.most * math.prod(window[1:]) // math.prod(space)


def _halved(space: Sequence[int], steps: Sequence[int]) -> list[int] | None:
    """The window with its longest edge halved that a network can see halved, and norm at its coarsest level."""
    ways = [
        way
        for way, (edge, step) in enumerate(zip(space, steps, strict=True))
        if edge % (4 * step) == 0
    ]
    longest = max(ways, key=lambda way: space[way], default=None)
    return (
        None
        if longest is None
        else [edge // (1 + (way == longest)) for way, edge in enumerate(space)]
    )
