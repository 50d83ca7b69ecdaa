"""What a call knows of its scans: what became of them, the bar, the tables and the page."""

from collections.abc import Iterator
from contextlib import contextmanager

from segpipe.config.predict import Predict
from segpipe.engines.events import Advanced, Claimed, Event, Settled, Started
from segpipe.prediction.calls import Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.places import LOCAL, Places
from segpipe.prediction.progress import BatchProgress
from segpipe.prediction.record_store import RecordStore
from segpipe.reporting.prediction_summary import Outcomes
from segpipe.reporting.prediction_views import Views


class Board:
    """Takes what workers tell.

    Args:
        options: the options of the call; its output is there.
        calls: this one and the others on its output.
        places: the places that scans come from and masks go to.

    Attributes:
        outcomes: the outcomes of the scans that are settled since `begin`.
        claimed: scans that other calls have claimed since `begin_round`.
    """

    def __init__(self, options: Predict, calls: Calls, places: Places = LOCAL) -> None:
        assert options.output is not None
        self.store = RecordStore(options.output)
        self.views = Views(options.output, self.store, calls, places.named(options))
        self.outcomes = Outcomes()
        self.claimed: list[Scan] = []
        self.progress = BatchProgress(0)

    @contextmanager
    def begin(self, scans: int) -> Iterator[None]:
        """Expect this number of scans; the bar is shown while the block runs."""
        self.outcomes = Outcomes()
        self.views.requested = scans
        with BatchProgress(scans) as self.progress:
            yield

    def begin_round(self) -> None:
        """Forget what other calls have claimed."""
        self.claimed = []

    def take(self, event: Event) -> None:
        """Note what has happened to a scan, and now and then write the tables and the page.

        Raises:
            DataError: if they cannot be written, as on a full disk.
        """
        match event:
            case Started(name):
                self.progress.start(name)
            case Advanced(name, done, total):
                self.progress.report(name, done, total)
            case Claimed(scan):
                self.claimed.append(scan)
            case Settled():
                self._count(event)
                self.progress.finish(event.name)
                self.views.update()

    def _count(self, event: Settled) -> None:
        record = event.record
        outcomes = self.outcomes
        if record.failed:
            failures = outcomes.known if event.is_known else outcomes.failed
            failures.append(record)
        elif event.is_new:
            outcomes.new.append(record)
            outcomes.incomplete += event.is_incomplete
        else:
            self.store.records[record.name] = record  # with the truth of this call
            outcomes.unchanged.append(record)
            outcomes.incomplete_before += event.is_incomplete
