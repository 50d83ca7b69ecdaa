"""The processes that train one network together, by PyTorch's DistributedDataParallel (DDP).

Each has a device and a share of every batch, and all hold the same weights. The first decides all
that could differ between them, such as the time, and alone writes files.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from segpipe.errors import ConfigError
from segpipe.launchers import Place
from segpipe.plan import Plan

T = TypeVar("T")
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}  # by which gradients and sums of the loss travel
MEETING = timedelta(minutes=10)  # for processes of a launcher to start and to find the first one
WAITING = timedelta(days=7)  # for a message, as while the first process inspects a dataset
# what errors of gloo and NCCL say where another process has ended
LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")
_messages: Any = None  # the group for Python objects, which never wait for a GPU


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one network; by itself where `size` is 1.

    Attributes:
        rank: its number, 0 for the first.
        size: number of the processes.
        sharing: number of those that share the cores which this process may use.
    """

    rank: int = 0
    size: int = 1
    sharing: int = 1

    @property
    def is_first(self) -> bool:
        """Return whether this process decides, writes and scores."""
        return self.rank == 0

    def shared(self, value: T) -> T:
        """Return the first process's value; all must call this at the same point."""
        if self.size == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held, 0, _messages)
        return held[0]

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes in their order; all must call this at one point."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, _messages)
        return values

    def dealt(self, items: Sequence[T]) -> list[T]:
        """Return this process's share of the items, which are dealt out one by one."""
        return list(items[self.rank :: self.size])

    def patches(self, plan: Plan) -> int:
        """Return the patches of a step that are this process's: all have as many.

        Raises:
            ConfigError: if the plan's batch cannot be divided so.
        """
        if plan.batch % self.size:
            above = -(-plan.batch // self.size) * self.size
            raise ConfigError(
                f"plan.batch is {plan.batch} patches a step over all devices, which {self.size} "
                f"devices cannot share: give plan.batch={above}, or another trainer.devices"
            )
        return plan.batch // self.size


ALONE = Ranks()


def collected(shares: Sequence[Sequence[T]]) -> list[T]:
    """Return in their order the items that `Ranks.dealt` has dealt out, given all shares."""
    missing = object()
    items: list[Any] = []
    for turn in itertools.zip_longest(*shares, fillvalue=missing):
        items += [item for item in turn if item is not missing]
    return items


def named(device: torch.device, devices: int) -> str:
    """Return the devices that train, and by what they do so together."""
    if devices == 1:
        return str(device)
    return f"{devices} devices ({device.type}, DDP over {BACKENDS[device.type]})"


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that another process has ended."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)


def listen() -> TCPStore:
    """Open a free port of this machine, at which processes beside this one can meet it."""
    return TCPStore(Place().address, 0, is_master=True, wait_for_workers=False)


def call(place: Place) -> TCPStore:
    """Reach the first process, or a launcher, at its port; open that port where this is the first.

    Args:
        place: the place of this process.
    """
    is_master = place.rank == 0 and not place.is_held
    return TCPStore(
        place.address, place.port, is_master=is_master, timeout=MEETING, wait_for_workers=False
    )


def join(place: Place, device: torch.device, store: TCPStore | None = None) -> Ranks:
    """Meet the other processes.

    Args:
        place: the place of this process.
        device: the device that this process trains on; it must be the current one if it is a GPU.
        store: the first process's store, where it listens already.
    """
    global _messages
    store = store or call(place)
    backend = BACKENDS[device.type]
    distributed.init_process_group(backend, store=store, rank=place.rank, world_size=place.size)
    _messages = distributed.new_group(backend="gloo", timeout=WAITING)
    return Ranks(place.rank, place.size, place.sharing)


def leave() -> None:
    """Part from the other processes, if this one has met any."""
    global _messages
    _messages = None
    if distributed.is_initialized():
        distributed.destroy_process_group()
