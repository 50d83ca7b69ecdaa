"""Which worker has which scans in hand, and what becomes of them when a worker is lost."""

from collections import Counter, deque
from collections.abc import Sequence

from segpipe.prediction.channel_sets import Scan

LOSSES = 3  # workers that a scan may cost, while they had no other in hand, until it is given up


class Desk:
    """Hands out the scans of a call to its workers.

    A worker takes one scan while it computes another. Where a worker is lost, the scans that it had
    in hand are handed out again at the end, each to a worker that has no other: so the scan that
    ends its process, if it is one of them, is found, and fails alone.

    Args:
        scans: the scans to hand out, in their order.
        workers: number of the workers.
    """

    def __init__(self, scans: Sequence[Scan], workers: int) -> None:
        self.waiting = deque(scans)
        self.workers = workers
        self.held: dict[int, dict[str, Scan]] = {}  # by the number of the worker
        self.suspects: set[str] = set()  # names of scans that were in hand when a worker was lost
        self.losses: Counter[str] = Counter()  # by the name of the scan that was alone in hand
        self.is_closed = False

    @property
    def is_done(self) -> bool:
        """Return whether all scans are settled or given up."""
        return not self.waiting and not any(self.held.values())

    def next(self, worker: int) -> Scan | None:
        """Return a scan for a worker; None where it must first finish what it has, or none is left.

        Those that have nothing to do come first: they are not left without because another worker
        takes scans ahead.
        """
        held = self.held.setdefault(worker, {})
        if not self.waiting:
            return None
        if held:
            idle = self.workers - sum(map(bool, self.held.values()))
            suspects = self.suspects & {*held, self.waiting[0].name}
            if suspects or len(self.waiting) <= idle:
                return None
        scan = self.waiting.popleft()
        held[scan.name] = scan
        return scan

    def holds(self, worker: int) -> bool:
        """Return whether a worker has scans in hand."""
        return bool(self.held.get(worker))

    def settle(self, worker: int, name: str) -> None:
        """Note that a worker is done with a scan."""
        self.held[worker].pop(name, None)

    def lose(self, worker: int) -> tuple[list[Scan], list[Scan]]:
        """Take back what a lost worker had; return scans to do again, and those to give up."""
        held = list(self.held.pop(worker, {}).values())
        self.suspects.update(scan.name for scan in held)
        if len(held) == 1:
            self.losses[held[0].name] += 1
        again = [scan for scan in held if self.losses[scan.name] < LOSSES]
        given_up = [scan for scan in held if self.losses[scan.name] >= LOSSES]
        if not self.is_closed:
            self.waiting.extend(again)
        return again, given_up

    def close(self) -> None:
        """Hand out no more."""
        self.is_closed = True
        self.waiting.clear()
