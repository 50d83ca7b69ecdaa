"""What a forward pass without gradients needs of the memory: found by running it without data, on the `meta` device."""

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SAME_SIZE = (_NormBase, nn.GroupNorm, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid)


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
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, count: int) -> None:
        self.now -= count


class _AsLarge(nn.Module):
    """Stands for a layer whose answer is as large as what it sees."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """A copy, or `x` itself."""
        return x if self.inplace else x.clone()


def _simplified(network: nn.Module) -> nn.Module:
    """Without norms and activations: torch's rules for their sizes would import its compiler, too."""
    for name, child in network.named_children():
        plain = isinstance(child, SAME_SIZE)
        setattr(network, name, _AsLarge(getattr(child, "inplace", False)) if plain else _simplified(child))
    return network


def forward_bytes(network: nn.Module, window: Sequence[int]) -> int:
    """The most bytes of float32 that live at once while the network sees one window `(c, *space)`, weights left out.

    Convolutions' own workspace is not in it, nor is a format of fewer bytes.
    """
    empty = _simplified(copy.deepcopy(network).to("meta").eval())
    with torch.no_grad(), _Living() as living:
        empty(torch.empty(1, *window, device="meta"))
    return living.most
