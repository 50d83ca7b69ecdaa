"""The manifest, the tables and the page of a folder of predictions, made from its records."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segpipe.config.predict import Predict
from segpipe.files import write_lines
from segpipe.metrics import write_scores
from segpipe.prediction.calls import Calls
from segpipe.prediction.outputs import write_predictions
from segpipe.prediction.record_store import MANIFEST, RecordStore, rows_of
from segpipe.prediction.records import scores_of
from segpipe.reporting.prediction_page import write_index

CLAIM = "//views"  # no scan has this name
EVERY_S = 3.0  # between two times that they are written while scans are done
SHARE = 0.05  # of the time that writing them may take
WAIT_S = 0.1


class Views:
    """What a person or a program reads of a folder of predictions.

    Args:
        output: the folder.
        store: its records.
        calls: that work on it; one at a time writes, from all records that there are then.
        options: the options of this call.
        requested: number of scans of this call.
    """

    def __init__(
        self, output: Path, store: RecordStore, calls: Calls, options: Predict, requested: int = 0
    ) -> None:
        self.output = output
        self.store = store
        self.calls = calls
        self.options = options
        self.requested = requested
        self.next_s = -math.inf  # from when they may be written again
        self.is_behind = False  # whether there are records that they lack

    def update(self) -> None:
        """Write them, unless they were written a moment ago or another call is at it.

        Raises:
            DataError: if they cannot be written, as on a full disk.
        """
        self.is_behind = True
        start = time.perf_counter()
        if start < self.next_s or not self.calls.claim(CLAIM):
            return
        page = self.options.page.model_copy(update={"viewer": False})  # which is slow to make
        with self._released():
            self._write(self.options.model_copy(update={"page": page}), is_final=False)
        end = time.perf_counter()
        self.next_s = end + max(EVERY_S, (end - start) / SHARE)

    def refresh(self) -> None:
        """Write them if there is something new, as `update` does.

        Raises:
            DataError: if they cannot be written, as on a full disk.
        """
        if self.is_behind:
            self.update()

    def finish(self) -> None:
        """Write them from all records.

        Raises:
            DataError: if they cannot be written, as on a full disk.
        """
        while not self.calls.claim(CLAIM):
            time.sleep(WAIT_S)
        with self._released():
            self._write(self.options, is_final=True)

    @contextmanager
    def _released(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.calls.release(CLAIM)

    def _write(self, options: Predict, is_final: bool) -> None:
        self.is_behind = False
        self.store.refresh()
        known = self.store.records
        records = [known[name] for name in sorted(known)]
        write_lines(self.output / MANIFEST, rows_of(known))
        write_predictions(self.output / "predictions.csv", records)
        scores = scores_of(records)
        if scores:
            write_scores(scores, self.output / "scores.csv")
        write_index(self.output, records, self.requested, options, is_final)
