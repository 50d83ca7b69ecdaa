"""Work done ahead in a thread, and a Ctrl-C that lets the current scan finish."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from segpipe.device import count_cores, usable_mib

MOST_HELPERS = 4
HELPER_MIB = 8192  # of the host, that a large CT may need while it is read and another is written
log = logging.getLogger("segpipe")
Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int = 1,
) -> Iterator[Result]:
    """Yield the results in order; while one is used the next `ahead` are computed, and no more."""
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets, so that the scan in hand is finished.

    A second Ctrl-C ends at once.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield interrupted
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        log.warning("interrupted: the scan in hand is finished first; once more ends at once")
        interrupted.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def one_core(threads: int = 1) -> ThreadPoolExecutor:
    """Return threads of one core each; more would wait for the cores that the network uses."""
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def count_helpers(device: torch.device) -> int:
    """Return how many scans are read, and as many written, while the network computes one.

    It is one where the network has the cores. A GPU would wait for that one, so there are up to
    four beside it, by cores and by the memory that holds the scans.
    """
    if device.type == "cpu":
        return 1
    room = usable_mib(torch.device("cpu")) / HELPER_MIB
    return max(1, min(MOST_HELPERS, count_cores() // 2, int(room)))
