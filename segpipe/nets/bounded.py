"""Build a network that an unknown file describes: within the size of its weights, and offline."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segpipe.errors import ConfigError
from segpipe.text import clipped, first_line, times

TIMES_WEIGHTS = 3  # a layer is made, and then laid out anew in memory
SPARE_BYTES = 2**28  # beside them
SPARE_STEPS = 2_000
STEPS_PER_WEIGHT = 20  # operations to make one of a network's tensors; MONAI's take 2 to 5
FILLED = {"empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "eye"}
RANGES = {"arange", "linspace", "logspace", "randperm"}
FETCHING = ("socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen")
_thread = threading.local()
_watching: list[bool] = []  # whether the interpreter calls `_refuse_to_fetch` already


def build_bounded(
    file: Path, make: Callable[[], nn.Module], weights: Mapping[str, Tensor]
) -> nn.Module:
    """Return a network with the weights of a checkpoint.

    Args:
        file: the checkpoint, for messages.
        make: builds the network that the checkpoint describes.
        weights: the weights by name.

    Raises:
        ConfigError: if the weights are those of another network.
    """
    try:
        with bounded(weights):
            network = make()
    except (ConfigError, RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise ConfigError(f"{file}: {clipped(first_line(error), 300)}") from None
    expected = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    for name in sorted(expected.keys() ^ weights.keys()):
        where = "lacks" if name in expected else "has more than its network:"
        raise ConfigError(f"{file}: {where} the weights {clipped(name)}, so it is another's")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ConfigError(
                f"{file}: the weights {name} are {times(weights[name].shape)}, but its network "
                f"needs {times(shape)}"
            )
    network.load_state_dict(dict(weights))
    return network


@contextmanager
def bounded(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the block build a network of about these weights, and nothing larger.

    Raises:
        ConfigError: as soon as the block takes more memory or steps than these weights can need,
            or turns to the network.
    """
    with Budget(weights), offline():
        yield


class Budget(TorchDispatchMode):
    """Counts the bytes and the operations of torch in a block.

    Args:
        weights: what the block builds.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        stored = sum(weight.numel() * weight.element_size() for weight in weights.values())
        self.bytes_left = TIMES_WEIGHTS * max(stored, 4 * sum(map(Tensor.numel, weights.values())))
        self.bytes_left += SPARE_BYTES
        self.steps_left = STEPS_PER_WEIGHT * len(weights) + SPARE_STEPS

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return that nothing need be hidden from PyTorch's compiler, whose import takes 1 s."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do one operation, unless it would break the budget.

        Raises:
            ConfigError: if it would.
        """
        name = func.overloadpacket.__name__
        planned = _planned_bytes(name, args)
        self._take(planned)
        result = func(*args, **(kwargs or {}))
        if not planned and not name.endswith("_") and not func.is_view:
            made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self._take(sum(tensor.numel() * tensor.element_size() for tensor in made))
        return result

    def _take(self, size: int) -> None:
        self.bytes_left -= size
        self.steps_left -= 1
        if self.bytes_left < 0 or self.steps_left < 0:
            raise ConfigError("describes a network that is far larger than its weights")


def _planned_bytes(name: str, args: tuple[Any, ...]) -> int:
    """Return the bytes that a factory is about to take, at 4 each; 0 of another operation."""
    if name in RANGES:
        numbers = [abs(value) for value in args if isinstance(value, int | float)]
        return 4 * int(max(numbers, default=0))
    if name not in FILLED or not args:
        return 0
    sizes = args[0] if isinstance(args[0], list | tuple) else args[:2]
    size = 4
    for side in sizes:
        size *= int(side)
    return size


@contextmanager
def offline() -> Iterator[None]:
    """Refuse every connection to a network, and every other program, that the block asks for."""
    if not _watching:
        _watching.append(True)
        sys.addaudithook(_refuse_to_fetch)
    _thread.offline = True
    try:
        yield
    finally:
        _thread.offline = False


def _refuse_to_fetch(event: str, _arguments: Any) -> None:
    if event in FETCHING and getattr(_thread, "offline", False):
        raise ConfigError("describes a network that would fetch its weights from elsewhere")
