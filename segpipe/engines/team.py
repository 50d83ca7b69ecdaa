"""Several workers, each in a process of its own, that settle the scans of one call together."""

import logging
from collections.abc import Sequence
from threading import Event as Flag
from typing import Protocol, runtime_checkable

from segpipe.config.predict import Predict
from segpipe.engines.desk import LOSSES, Desk
from segpipe.engines.events import Claimed, Settled, Tell
from segpipe.engines.serving import Message, Sign
from segpipe.errors import DataError, SegpipeError
from segpipe.files import remove_abandoned_parts
from segpipe.plan import Plan
from segpipe.prediction.calls import Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.record_store import RecordStore
from segpipe.prediction.records import ScanRecord, is_known_failure

log = logging.getLogger("segpipe")
WAIT_S = 0.2  # for messages, before it is looked whether Ctrl-C was pressed


class LostWorkerError(Exception):
    """The process of a worker has ended by itself; the text says how."""


@runtime_checkable
class Hand(Protocol):
    """A worker, as its call sees it."""

    number: int

    def send(self, message: Scan | Sign) -> None:
        """Send an answer; one to a worker that is lost goes nowhere."""
        ...

    def receive(self) -> Message:
        """Return the next message of the worker.

        Raises:
            LostWorkerError: if its process has ended.
        """
        ...

    def end(self, is_told: bool) -> None:
        """End the process: let one that was sent `Sign.END` do so itself, others by force."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where workers come from.

    Attributes:
        size: number of the workers.
    """

    size: int

    def start(self, number: int) -> Hand:
        """Start a worker; `number` counts from 0."""
        ...

    def ready(self, hands: Sequence[Hand], seconds: float) -> list[Hand]:
        """Return those that have sent something, as soon as there is one, or after the time."""
        ...


class Team:
    """Workers that settle the scans of one call.

    Args:
        options: the options of the call.
        plan: the plan of its network.
        calls: this one and the others on its output.
        source: the source of the workers.
        device: the device that computes, as it is shown to people.
    """

    def __init__(
        self, options: Predict, plan: Plan, calls: Calls, source: Source, device: str
    ) -> None:
        assert options.output is not None
        self.folder = options.output
        self.plan = plan
        self.calls = calls
        self.source = source
        self.description = f"{source.size} workers ({device})"
        self.hands: dict[int, Hand] = {}
        self.idle: set[int] = set()  # workers that wait for an answer
        self.opened: set[int] = set()  # workers that have asked for a scan
        self.desk = Desk([], source.size)
        self.lost = 0
        self.lost_at_start = 0  # one after the other

    def settle(self, scans: Sequence[Scan], tell: Tell, stop: Flag) -> None:
        """Let the workers settle some scans.

        Args:
            scans: the scans, in their order.
            tell: is called with what becomes of them.
            stop: no scan is begun once it is set.

        Raises:
            ConfigError: if the workers cannot use a checkpoint or an option.
            DataError: if the disk is full, or workers end as soon as they start.
        """
        workers = min(self.source.size, len(scans))
        self.desk = Desk(scans, workers)
        try:
            for number in range(workers):
                if number not in self.hands:
                    self.hands[number] = self.source.start(number)
            for number in sorted(self.idle):
                self._answer(self.hands[number])
            while not self.desk.is_done:
                if stop.is_set():
                    self.desk.close()
                for hand in self.source.ready(list(self.hands.values()), WAIT_S):
                    self._hear(hand, tell)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all workers; what those have half written that end by force is removed."""
        is_done = self.desk.is_done
        for number in self.opened:
            if is_done:
                self.hands[number].send(Sign.END)
        for hand in self.hands.values():
            hand.end(is_done and hand.number in self.opened)
        if self.hands and (self.lost or not is_done):
            remove_abandoned_parts(self.folder)
        self.hands.clear()
        self.idle.clear()
        self.opened.clear()

    def _hear(self, hand: Hand, tell: Tell) -> None:
        """Do what the next message of a worker asks for."""
        try:
            message = hand.receive()
        except LostWorkerError as error:
            self._replace(hand, str(error), tell)
            return
        if message is Sign.ASK:
            self.opened.add(hand.number)
            self.lost_at_start = 0
            self._answer(hand)
        elif isinstance(message, SegpipeError):
            raise message
        elif isinstance(message, logging.LogRecord):
            # all workers say the same while they open the network, as this process has done
            if hand.number in self.opened or message.levelno >= logging.WARNING:
                log.handle(message)
        elif not isinstance(message, Sign):
            if isinstance(message, Settled | Claimed):
                self.desk.settle(hand.number, message.name)
            tell(message)

    def _answer(self, hand: Hand) -> None:
        """Send a worker the next scan, or let it wait."""
        scan = self.desk.next(hand.number)
        self.idle.discard(hand.number)
        if scan is not None:
            hand.send(scan)
        elif self.desk.holds(hand.number):
            hand.send(Sign.WAIT)
        else:
            self.idle.add(hand.number)

    def _replace(self, hand: Hand, cause: str, tell: Tell) -> None:
        """Start another worker in place of a lost one, and hand out again what it had.

        Raises:
            DataError: if workers end as soon as they start.
        """
        number = hand.number
        self.lost += 1
        if number not in self.opened:
            self.lost_at_start += 1
        if self.lost_at_start >= LOSSES:
            raise DataError(f"workers end before they take a scan: {cause}")
        again, given_up = self.desk.lose(number)
        names = ", ".join(scan.name for scan in again) or "none"
        log.warning("worker %d is lost (%s); to be done again: %s", number + 1, cause, names)
        self.idle.discard(number)
        self.opened.discard(number)
        hand.end(is_told=False)
        del self.hands[number]
        for scan in given_up:
            tell(self._failed(scan, cause))
        if not self.desk.is_done:
            self.hands[number] = self.source.start(number)
        for other in sorted(self.idle):
            self._answer(self.hands[other])

    def _failed(self, scan: Scan, cause: str) -> Settled:
        """Store that a scan has failed since each worker that had it was lost."""
        reason = f"{scan.images[0]}: {LOSSES} processes that computed it alone were lost ({cause})"
        record = ScanRecord(scan.name, images=list(map(str, scan.images)), reason=reason)
        store = RecordStore(self.folder, reads_all=False)
        is_known = is_known_failure(record, store.latest(scan.name))
        store.write(record)
        self.calls.release(scan.name)
        return Settled(record, is_new=True, is_known=is_known, is_incomplete=True)
