"""A worker in a process of its own: it asks for scans, and tells what becomes of them."""

import logging
import logging.handlers
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from queue import SimpleQueue

from segpipe import extensions
from segpipe.config.predict import Predict
from segpipe.device import share_machine
from segpipe.engines.events import Advanced, Event
from segpipe.engines.worker import open_worker
from segpipe.errors import SegpipeError
from segpipe.prediction.channel_sets import Scan
from segpipe.text import first_line

EVERY_S = 0.2  # between two messages of how much of a scan is computed
log = logging.getLogger("segpipe")


class Sign(Enum):
    """A message without content.

    Attributes:
        ASK: the request of a worker that can take a scan.
        WAIT: the answer that there is no scan for a worker until it has finished those in hand.
        END: the answer that there is nothing more to do.
    """

    ASK = auto()
    WAIT = auto()
    END = auto()


Message = Event | Sign | logging.LogRecord | SegpipeError


@dataclass(frozen=True)
class Post:
    """What a process of a worker is told when it starts.

    Attributes:
        options: the options of the call, with the device of this worker.
        family: name of the call.
        threads: number of threads that it may use.
        sharing: number of workers that share the memory of the machine.
        sharing_device: number of workers that share its GPU.
    """

    options: Predict
    family: str
    threads: int
    sharing: int
    sharing_device: int


class CallerGoneError(Exception):
    """The process that this worker belongs to has ended."""


class Exchange:
    """The messages between a worker and its call.

    Args:
        send: a message to the call.
        receive: waits for the answer of the call to `Sign.ASK`.
    """

    def __init__(
        self, send: Callable[[Message], object], receive: Callable[[], Scan | Sign]
    ) -> None:
        self._send = send
        self._receive = receive
        self._lock = threading.Lock()  # log lines come from several threads
        self._next_s = 0.0
        self.is_over = False

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            CallerGoneError: if nobody is there to receive it.
        """
        with self._lock:
            try:
                self._send(message)
            except OSError:
                raise CallerGoneError from None

    def tell(self, event: Event) -> None:
        """Send an event, of those about progress only some."""
        if isinstance(event, Advanced):
            now = time.monotonic()
            if now < self._next_s:
                return
            self._next_s = now + EVERY_S
        self.send(event)

    def ask(self) -> Scan | None:
        """Return the next scan; None where there is none at present.

        Raises:
            CallerGoneError: if nobody is there to answer.
        """
        self.send(Sign.ASK)
        try:
            answer = self._receive()
        except (EOFError, OSError):
            raise CallerGoneError from None
        self.is_over = answer is Sign.END
        return answer if isinstance(answer, Scan) else None


class LogSender(logging.handlers.QueueHandler):
    """Sends log records to the call, which prints and keeps them.

    Args:
        exchange: the exchange with the call.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(SimpleQueue())  # which stays empty
        self.exchange = exchange

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record, unless nobody is there."""
        try:
            self.exchange.send(record)
        except CallerGoneError:  # the next scan that is asked for ends the worker
            return


def serve(post: Post, exchange: Exchange) -> None:
    """Settle scans until the call ends the worker, or has ended itself."""
    with _logged_to(exchange):
        _serve(post, exchange)


@contextmanager
def _logged_to(exchange: Exchange) -> Iterator[None]:
    """Send all log records of the block to the call, and to nobody else."""
    handler = LogSender(exchange)
    level = log.level
    propagate = log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def _serve(post: Post, exchange: Exchange) -> None:
    try:
        extensions.load(post.options.extensions)
        share_machine(post.threads, post.sharing, post.sharing_device)
        worker = open_worker(post.options, post.family)
        with worker.calls.joined():
            while not exchange.is_over:
                worker.settle(iter(exchange.ask, None), exchange.tell)
    except CallerGoneError:
        return
    except SegpipeError as error:
        exchange.send(error)
    except Exception as error:  # of which the call sees only that this process has ended
        log.error("a worker ends: %s: %s", type(error).__name__, first_line(error))
        raise
