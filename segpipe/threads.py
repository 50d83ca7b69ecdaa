"""The threads on which a network computes on a CPU: fewer while other processes use its cores.

At the end of each operation its threads wait for the slowest of them. Where another process takes
one core of two, a thread waits for its turn there some thousand times a step, and one thread alone
is several times as fast as two (`docs/training.md`).
"""

import logging
import os
import time
from functools import cache

import psutil
import torch

from segpipe.device import THREADS, count_cores
from segpipe.text import count

log = logging.getLogger("segpipe")
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # states of a core that is in use
FIRST_S = 1.0  # until the first look at the other processes
EVERY_S = 10.0  # and between any two after it


def fit_threads(device: torch.device) -> None:
    """Let PyTorch compute on the cores that other processes leave, where it computes on the CPU.

    The first call begins to watch them; later ones, as often as one likes, change the number of
    threads where it has become another one. It is that of the calling thread, which computes.
    Commands call this, between computations that do not depend on each other's rounding.
    """
    if device.type == "cpu":
        _threads().fit()


def usual_threads() -> int:
    """Return on how many threads this process computes where nothing else runs.

    The number now may be smaller for a while; what is planned must not depend on that.
    """
    is_watched = _threads.cache_info().currsize > 0
    return _threads().most if is_watched else torch.get_num_threads()


def fitting(most: int, cores: int, others: float) -> int:
    """Return the number of threads that suits what other processes use.

    It is at least half of the most, so that of two trainings the one that comes second gets its
    share: the first one then makes way.

    Args:
        most: number of threads where nothing else runs.
        cores: number of cores that this process may use.
        others: mean number of them that other processes keep busy.
    """
    free = round(cores - others)
    return min(most, max(free, most // 2, 1))


class OtherLoad:
    """Measures what processes other than this one and its children use of the cores."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.before = self._seconds()

    def measure(self) -> float:
        """Return the mean number of cores that they have kept busy since the last call."""
        before = self.before
        self.before = self._seconds()
        wall, others = self.before[0] - before[0], self.before[1] - before[1]
        return max(0.0, others / wall)

    def _seconds(self) -> tuple[float, float]:
        """Return the time now, and the CPU seconds that others have used so far."""
        busy = 0.0
        cores = _allowed_cores()
        for core, times in enumerate(psutil.cpu_times(percpu=True)):
            if cores is None or core in cores:
                busy += sum(getattr(times, state, 0.0) for state in BUSY)
        own = sum(self.process.cpu_times()[:4])  # with those of its children that have ended
        for child in self.process.children(recursive=True):
            try:
                own += sum(child.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue  # it is among those that have ended
        return time.perf_counter(), busy - own


class _Threads:
    """Keeps the number of threads of this process."""

    def __init__(self) -> None:
        self.most = torch.get_num_threads()
        self.is_fixed = self.most == 1 or THREADS in os.environ
        self.load = OtherLoad()
        self.next_s = time.perf_counter() + FIRST_S

    def fit(self) -> None:
        """Set the number of threads, where it is time to look again."""
        if self.is_fixed or time.perf_counter() < self.next_s:
            return
        self.next_s = time.perf_counter() + EVERY_S
        cores = count_cores()
        others = self.load.measure()
        threads = fitting(self.most, cores, others)
        if threads == torch.get_num_threads():
            return
        torch.set_num_threads(threads)
        using = f"other processes use {others:.1f} of the {count(cores, 'core')}"
        log.info("%s: computing on %s", using, count(threads, "thread"))


@cache
def _threads() -> _Threads:
    return _Threads()


def _allowed_cores() -> set[int] | None:
    """Return the numbers of the cores that this process may use; None where it may use all."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
