"""Work done ahead in a thread, and a Ctrl-C that lets the current scan finish."""

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

log = logging.getLogger("segpipe")
Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield the results in order; while one is used the next is computed, and no more than that."""
    previous: Future[Result] | None = None
    for item in items:
        future = pool.submit(work, item)
        if previous is not None:
            yield previous.result()
        previous = future
    if previous is not None:
        yield previous.result()


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


def one_core() -> ThreadPoolExecutor:
    """Return a thread that uses one core; more would wait for the cores that the network uses."""
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
