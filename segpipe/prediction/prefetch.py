"""Work done ahead in a thread, and Ctrl-C that waits for what is in hand."""

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

log = logging.getLogger("segpipe")
T = TypeVar("T")
U = TypeVar("U")


def ahead(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """The results in order; while one is used the next is worked on, and no more than that."""
    last: Future[U] | None = None
    for item in items:
        one = pool.submit(work, item)
        if last is not None:
            yield last.result()
        last = one
    if last is not None:
        yield last.result()


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the scan in hand is finished; a second Ctrl-C ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield asked
        return

    def ask(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        log.warning("interrupted: the scan in hand is finished first; once more ends at once")
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
