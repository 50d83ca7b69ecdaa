"""A batch of predictions: a scan that fails is reported, the rest are done, and nothing twice.

While the network computes one scan, the next is read and the last is written.
"""

import errno
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from segpipe.config.predict import Predict
from segpipe.data.cases import Case
from segpipe.data.prepare import prepare_scan, read_labels
from segpipe.errors import BatchInterruptedError, DataError
from segpipe.files import digest, make_folder, remove_abandoned_parts
from segpipe.io.content import content_files
from segpipe.io.notes import collecting
from segpipe.io.volumes import read_grid, shown_unit
from segpipe.metrics import score_case, write_scores
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.opening import mask_settings, open_predictor
from segpipe.prediction.outputs import (
    check_output_paths,
    measure_volumes,
    write_outputs,
    write_predictions,
)
from segpipe.prediction.postprocessing import clean, cleaning_arguments
from segpipe.prediction.predictor import Prediction, Predictor
from segpipe.prediction.prefetch import interruption, one_core, prefetched
from segpipe.prediction.progress import BatchProgress
from segpipe.prediction.reasons import one_line, reason
from segpipe.prediction.records import (
    ReadScan,
    ScanRecord,
    is_up_to_date,
    read_records,
    write_records,
)
from segpipe.prediction.scans import find_scans, readable_files
from segpipe.prediction.timing import ProgressCallback, timed
from segpipe.prediction.truths import find_truths
from segpipe.reporting.prediction_page import warnings_for, write_index
from segpipe.reporting.prediction_summary import show_batch
from segpipe.reporting.rendering import draw_prediction
from segpipe.text import count

log = logging.getLogger("segpipe")
SOME_FAILED = 3
FREE_PAGES = 3.0  # seconds that the page may take while scans are done, beside its share
PAGE_SHARE = 0.05  # of the time


def predict_batch(options: Predict) -> int:
    """Write a mask for each scan, `predictions.csv`, pictures, and scores where the truth is given.

    A mask that is there already, made of the same content by the same weights and settings, is left
    as it is.

    Returns:
        The exit status: 0 when all scans are done, 3 when some failed.

    Raises:
        ConfigError: if the checkpoint, the input or the output cannot be used.
        DataError: if the disk is full.
        BatchInterruptedError: if the batch was interrupted.
    """
    assert options.input is not None
    assert options.output is not None
    predictor = open_predictor(options)
    channels = len(predictor.plan.channels)
    scans = find_scans(options.input, options.output, channels, options.recursive, options.columns)
    check_output_paths(scans, options.save, options.overlays)
    batch = Batch(options.output, scans, predictor, options)
    device = f"{predictor.device} in {predictor.number_format}"
    log.info("%s, %s", count(len(scans), "scan"), device)
    try:
        batch.run()
    finally:
        batch.summarise()
    records = batch.records()
    show_batch(records, predictor.plan.label_names, options.output, options.truth)
    unscored = [record for record in records if record.name in batch.truths and not record.scores]
    return SOME_FAILED if unscored or any(record.failed for record in records) else 0


class Batch:
    """The scans of one call, on their way into one folder.

    Args:
        folder: for the masks, made if it is not there.
        scans: in their order.
        predictor: of the network.
        options: of the call.

    Raises:
        ConfigError: if a truth is missing, or the folder or its manifest cannot be used.
    """

    def __init__(
        self, folder: Path, scans: Sequence[Scan], predictor: Predictor, options: Predict
    ) -> None:
        self.folder = folder
        self.scans = scans
        self.predictor = predictor
        self.options = options
        self.plan = predictor.plan
        self.settings = mask_settings(options, predictor)
        self.cleaning = cleaning_arguments(predictor.postprocess, self.plan.labels, options.labels)
        self.truths = find_truths(scans, options.truth, folder)
        make_folder(folder)
        remove_abandoned_parts(folder)
        self.all_records = read_records(folder)  # of earlier calls too, by name
        self.started = time.perf_counter()
        self.page_seconds = 0.0

    def run(self) -> None:
        """Predict what is missing or changed.

        Raises:
            DataError: if the disk is full.
            BatchInterruptedError: if it was interrupted; what is done is kept.
        """
        writing: deque[tuple[ScanRecord, Future[None] | None]] = deque()
        with one_core() as reader, one_core() as writer, interruption() as interrupted:
            with BatchProgress(len(self.scans)) as progress:
                for read in prefetched(reader, self._read, self.scans):
                    progress.start(read.scan.name)
                    writing.append((read.record, self._segment(read, writer, progress.report)))
                    if len(writing) > 1:
                        self._finish(*writing.popleft())
                    progress.finish()
                    if interrupted.is_set():
                        break
            while writing:
                self._finish(*writing.popleft())
        if interrupted.is_set():
            raise BatchInterruptedError(
                f"interrupted: {len(self.records())} of {len(self.scans)} scans are settled; "
                "run again to go on"
            )

    def records(self) -> list[ScanRecord]:
        """Return the records of this call's scans so far, in their order."""
        return [self.all_records[scan.name] for scan in self.scans if scan.name in self.all_records]

    def summarise(self) -> None:
        """Write `scores.csv`, where the truth is given, and `index.html`."""
        self._write_page(self.options)

    def _write_page(self, options: Predict) -> None:
        scores = []
        for record in self.records():
            if not record.failed:
                scores += record.scores
        if scores:
            write_scores(scores, self.folder / "scores.csv")
        write_index(self.folder, self.all_records, len(self.scans), options)

    def _read(self, scan: Scan) -> ReadScan:
        """Read a scan, unless its files are up to date or the memory cannot hold it."""
        record = ScanRecord(scan.name, images=list(map(str, scan.images)), reason=scan.problem)
        if scan.problem:
            return ReadScan(scan, record)
        try:
            files = content_files(scan.images)
            if scan.name in self.truths:
                record.truth = str(self.truths[scan.name])
                files += readable_files(self.truths[scan.name])
            record.made_from = digest(files, *self.settings)
            earlier = self.all_records.get(scan.name)
            if earlier is not None and is_up_to_date(
                earlier, record.made_from, self.folder, self.options.retry_failed
            ):
                earlier.truth = record.truth
                return ReadScan(scan, earlier)
            with timed(record.seconds, "read"), collecting() as record.warnings:
                self.predictor.fallbacks_for(read_grid(scan.images[0]))  # raises before it is read
                record.unit = shown_unit(scan.images[0])
                prepared = prepare_scan(scan.images, self.plan)
            for warning in record.warnings:
                log.warning("%s", warning)
            return ReadScan(scan, record, prepared)
        except Exception as error:  # whatever is wrong with this scan, the others can be done
            record.reason = reason(scan, error)
            return ReadScan(scan, record)

    def _segment(
        self, read: ReadScan, writer: ThreadPoolExecutor, progress: ProgressCallback
    ) -> Future[None] | None:
        """Segment a scan, and have its files written; return None where there is none to write."""
        if read.prepared is None:
            return None
        try:
            prediction = self.predictor.segment(read.prepared, progress)
        except Exception as error:
            read.record.reason = self._failure(read.scan, error)
            return None
        if prediction.note:
            log.warning("%s: %s", read.scan.name, prediction.note)
        read.record.note = prediction.note
        return writer.submit(self._write, read.scan, read.record, prediction)

    def _write(self, scan: Scan, record: ScanRecord, prediction: Prediction) -> None:
        """Clean a mask, write its files, and complete its record."""
        try:
            record.seconds |= prediction.seconds
            cleaned = clean(prediction.labels, prediction.grid.voxel_ml, **self.cleaning)
            prediction = replace(prediction, labels=cleaned)
            with timed(record.seconds, "write"):
                files = write_outputs(prediction, scan, self.plan, self.options.save, self.folder)
            for file in files:
                record.files[file.relative_to(self.folder).as_posix()] = digest([file])
            measure_volumes(record, prediction, self.plan)
            record.warnings += warnings_for(prediction, record, self.plan)
            self._compare(scan, record, prediction)
        except Exception as error:
            record.reason = self._failure(scan, error)

    def _compare(self, scan: Scan, record: ScanRecord, prediction: Prediction) -> None:
        """Score a mask against the truth where it is given, and draw both."""
        truth = None
        if scan.name in self.truths:
            truth = self._score(scan, record, prediction)
        if self.options.overlays:
            picture = self.folder / record.picture
            names = self.plan.label_names
            unit = record.unit
            draw_prediction(prediction, truth, names, scan.name, picture, unit)
            record.drawn = True

    def _score(self, scan: Scan, record: ScanRecord, prediction: Prediction) -> np.ndarray | None:
        """Score a mask; return the truth, or None where it cannot be used, which is a warning."""
        case = Case(scan.name, scan.images, self.truths[scan.name])
        grid = prediction.grid
        try:
            content_files([self.truths[scan.name]])  # raises where reading would never end
            truth = read_labels(case, self.plan, grid).numpy()[0]
            record.scores = score_case(
                scan.name, prediction.labels, truth, grid.spacing_mm, self.plan.targets
            )
        except Exception as error:  # the mask is done, whatever is wrong with its truth
            why = one_line(self.truths[scan.name], error)
            record.warnings.append(f"not scored: {why}")
            log.warning("%s: not scored: %s", scan.name, why)
            return None
        return truth

    def _failure(self, scan: Scan, error: Exception) -> str:
        """Return why a scan failed.

        Raises:
            DataError: if the disk is full, since no other scan would fare better.
        """
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DataError(
                f"{self.folder}: the disk is full; make room and run again to go on"
            ) from None
        return reason(scan, error)

    def _finish(self, record: ScanRecord, written: Future[None] | None) -> None:
        """Wait until a scan is written; store its record, and tables and page of all so far."""
        if written is not None:
            written.result()
        self.all_records[record.name] = record
        write_records(self.folder, self.all_records)
        table = self.folder / "predictions.csv"
        write_predictions(table, self.records(), self.plan.label_names)
        start = time.perf_counter()
        if self.page_seconds <= FREE_PAGES + PAGE_SHARE * (start - self.started):
            page = self.options.page.model_copy(update={"viewer": False})  # which is slow to make
            self._write_page(self.options.model_copy(update={"page": page}))
            self.page_seconds += time.perf_counter() - start
