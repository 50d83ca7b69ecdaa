"""A batch of predictions: a scan that fails is reported, the rest are done, and nothing twice.

While the network computes one scan, the next is read and the last is written; on a GPU, several.
"""

import errno
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

from segpipe.config.predict import Predict
from segpipe.data.prepare import prepare_scan
from segpipe.errors import BatchInterruptedError, DataError
from segpipe.files import digest, make_folder, remove_abandoned_parts
from segpipe.io.notes import collecting
from segpipe.io.volumes import read_grid, shown_unit
from segpipe.metrics import check_scoring
from segpipe.prediction.calls import Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.dicom_outputs import DicomDetails
from segpipe.prediction.mask_warnings import warnings_for
from segpipe.prediction.merged import MergedPredictor
from segpipe.prediction.opening import mask_settings, open_predictor, scoring_settings
from segpipe.prediction.outputs import (
    add_quality,
    check_output_paths,
    measure_volumes,
    output_paths,
    write_outputs,
)
from segpipe.prediction.places import Places
from segpipe.prediction.postprocessing import clean, cleaning_arguments
from segpipe.prediction.predictor import Prediction, Predictor
from segpipe.prediction.prefetch import count_helpers, interruption, one_core, prefetched
from segpipe.prediction.progress import BatchProgress
from segpipe.prediction.reasons import reason
from segpipe.prediction.record_store import RecordStore
from segpipe.prediction.records import ReadScan, ScanRecord, is_known_failure, is_up_to_date
from segpipe.prediction.scans import find_scans, in_shard, readable_files
from segpipe.prediction.scoring import add_scores
from segpipe.prediction.timing import ProgressCallback, timed
from segpipe.prediction.truths import find_truths
from segpipe.remote import RemoteError
from segpipe.reporting.prediction_summary import Outcomes, show_batch
from segpipe.reporting.prediction_views import Views
from segpipe.reporting.rendering import draw_prediction
from segpipe.text import count

log = logging.getLogger("segpipe")
SOME_FAILED = 3
FULL = {errno.ENOSPC, errno.EDQUOT}  # a disk, or what a user may take of it
LOCAL = Places()
POLL_S = 2.0  # between two looks at scans that other calls have claimed


def predict_batch(options: Predict, places: Places = LOCAL) -> int:
    """Write a mask for each scan, `predictions.csv`, pictures, and scores where the truth is given.

    A mask that is there already, made of the same content by the same weights and settings, is left
    as it is.

    Args:
        options: of the call, whose input and output are on this machine.
        places: for which they stand.

    Returns:
        The exit status: 3 when a scan has failed in this call that did not fail before, or, where
        `strict` is set, when any has no mask or score; else 0.

    Raises:
        ConfigError: if the checkpoint, the input or the output cannot be used.
        DataError: if the disk is full.
        BatchInterruptedError: if the batch was interrupted.
    """
    assert options.input is not None
    assert options.output is not None
    predictor, dicom = open_predictor(options)
    channels = len(predictor.plan.channels)
    scans = find_scans(options.input, options.output, channels, options.recursive, options.columns)
    places.check(scans)
    check_output_paths(scans, options.save, options.overlays)
    scans = in_shard(scans, options.shard)
    batch = Batch(options.output, scans, predictor, options, dicom, places)
    log.info("%s, %s in %s", count(len(scans), "scan"), predictor.device, predictor.number_format)
    with batch.calls.joined():
        try:
            batch.run()
        finally:
            batch.views.finish()
    outcomes = batch.outcomes
    output = places.shown(options.output)
    show_batch(outcomes, predictor.plan.label_names, output, options.truth)
    is_bad = bool(outcomes.failed or outcomes.incomplete)
    if options.strict:
        is_bad |= bool(outcomes.known or outcomes.incomplete_before)
    return SOME_FAILED if is_bad else 0


class Batch:
    """The scans of one call, on their way into one folder.

    Args:
        folder: for the masks, made if it is not there.
        scans: in their order.
        predictor: of the network.
        options: of the call.
        dicom: what its DICOM files say; None where it writes none.
        places: where scans come from and masks go.

    Raises:
        ConfigError: if a truth is missing, or the folder or its records cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        scans: Sequence[Scan],
        predictor: Predictor | MergedPredictor,
        options: Predict,
        dicom: DicomDetails | None = None,
        places: Places = LOCAL,
    ) -> None:
        self.folder = folder
        self.dicom = dicom
        self.places = places
        self.scans = scans
        self.predictor = predictor
        self.options = options
        self.plan = predictor.plan
        self.settings = mask_settings(options, predictor)
        self.cleaning = cleaning_arguments(predictor.postprocess, self.plan.labels, options.labels)
        check_scoring(options, self.plan.targets)
        self.truths = find_truths(scans, options.truth, folder)
        make_folder(folder)
        remove_abandoned_parts(folder)
        self.store = RecordStore(folder)
        shares = options.claim or options.shard is not None
        self.calls = Calls(folder, digest([], *self.settings), shares)
        self.views = Views(folder, self.store, self.calls, places.named(options), len(scans))
        self.outcomes = Outcomes()
        self.helpers = count_helpers(predictor.device)

    def run(self) -> None:
        """Predict what is missing or changed.

        Raises:
            DataError: if the disk is full.
            BatchInterruptedError: if it was interrupted; what is done is kept.
        """
        scans = self.scans
        with (
            one_core(self.helpers) as reader,
            one_core(self.helpers) as writer,
            interruption() as interrupted,
            BatchProgress(len(self.scans)) as progress,
        ):
            while scans and not interrupted.is_set():
                claimed = self._run_round(scans, reader, writer, progress, interrupted)
                if len(claimed) == len(scans):  # others are at work on all that is left
                    interrupted.wait(POLL_S)
                scans = claimed
        if interrupted.is_set():
            raise BatchInterruptedError(
                f"interrupted: {self.outcomes.settled} of {len(self.scans)} scans are settled; "
                "run again to go on"
            )

    def _run_round(
        self,
        scans: Sequence[Scan],
        reader: ThreadPoolExecutor,
        writer: ThreadPoolExecutor,
        progress: BatchProgress,
        interrupted: Event,
    ) -> list[Scan]:
        """Predict scans, and return those that other calls have claimed."""
        claimed: list[Scan] = []
        writing: deque[tuple[ReadScan, Future[None] | None]] = deque()
        for read in prefetched(reader, self._read, scans, self.helpers):
            if read.state == "claimed":
                claimed.append(read.scan)
                continue
            progress.start(read.scan.name)
            writing.append((read, self._segment(read, writer, progress.report)))
            if len(writing) > self.helpers:
                self._finish(*writing.popleft())
            progress.finish()
            if interrupted.is_set():
                break
        while writing:
            self._finish(*writing.popleft())
        return claimed

    def _read(self, scan: Scan) -> ReadScan:
        """Read a scan, unless its files are up to date or the memory cannot hold it."""
        record = ScanRecord(scan.name, images=list(map(str, scan.images)), reason=scan.problem)
        if scan.problem:
            return ReadScan(scan, record)
        try:
            files, values = self.places.identity(scan)
            settings = [*self.settings, *values]
            if scan.name in self.truths:
                record.truth = str(self.truths[scan.name])
                files += readable_files(self.truths[scan.name])
                settings += scoring_settings(self.options)
            record.made_from = digest(files, *settings)
            if self._is_done(record):
                return ReadScan(scan, self.store.records[scan.name], state="unchanged")
            if self.options.claim:
                if not self.calls.claim(scan.name):
                    return ReadScan(scan, record, state="claimed")
                if self._is_done(record):  # by the call that has just released it
                    self.calls.release(scan.name)
                    return ReadScan(scan, self.store.records[scan.name], state="unchanged")
            with timed(record.seconds, "read"), collecting() as record.warnings:
                scan = self.places.opened(scan)
                self.predictor.fallbacks_for(read_grid(scan.images[0]))  # raises before it is read
                record.unit = shown_unit(scan.images[0])
                prepared = prepare_scan(scan.images, self.plan)
            for warning in record.warnings:
                log.warning("%s", warning)
            return ReadScan(scan, record, prepared)
        except Exception as error:  # whatever is wrong with this scan, the others can be done
            record.reason = self._failure(scan, record, error)
            return ReadScan(scan, record)

    def _is_done(self, record: ScanRecord) -> bool:
        """Return whether an earlier call, or another one, has left nothing to do for a scan."""
        earlier = self.store.latest(record.name)
        is_there = partial(self.places.is_there, self.folder)
        if earlier is None or not is_up_to_date(
            earlier, record.made_from, self.options.retry_failed, is_there
        ):
            return False
        earlier.truth = record.truth
        return True

    def _segment(
        self, read: ReadScan, writer: ThreadPoolExecutor, progress: ProgressCallback
    ) -> Future[None] | None:
        """Segment a scan, and have its files written; return None where there is none to write."""
        if read.prepared is None:
            return None
        try:
            prediction = self.predictor.segment(read.prepared, progress)
        except Exception as error:
            read.record.reason = self._failure(read.scan, read.record, error)
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
                record.files, problems = write_outputs(
                    prediction, scan, self.plan, self.options.save, self.folder, self.dicom
                )
            record.warnings += problems
            measure_volumes(record, prediction, self.plan)
            add_quality(record, prediction, self.predictor)
            record.warnings += warnings_for(prediction, record, self.plan)
            file = self.truths.get(scan.name)
            truth = add_scores(record, scan, file, prediction, self.plan, self.options)
            if self.options.overlays:
                picture = self.folder / record.picture
                names = self.plan.label_names
                draw_prediction(prediction, truth, names, scan.name, picture, record.unit)
                record.drawn = True
            self.places.keep_files(record)
        except Exception as error:
            record.reason = self._failure(scan, record, error)

    def _failure(self, scan: Scan, record: ScanRecord, error: Exception) -> str:
        """Return why a scan failed; what the machine lacked is tried again by the next call.

        Raises:
            DataError: if the disk is full, since no other scan would fare better.
        """
        if isinstance(error, OSError | MemoryError | RemoteError):
            record.made_from = ""
        if isinstance(error, OSError) and error.errno in FULL:
            raise DataError(
                f"{self.folder}: the disk is full; make room and run again to go on"
            ) from None
        return reason(scan, error)

    def _finish(self, read: ReadScan, written: Future[None] | None) -> None:
        """Wait until a scan is written; store its record, and now and then the tables and page."""
        if written is not None:
            written.result()
        record = read.record
        self.places.settle(record)
        is_known = is_known_failure(record, self.store.records.get(record.name))
        if read.state == "new":
            self.places.keep_record(self.store.write(record))
            self.calls.release(record.name)
        self._count(read, is_known)
        self.views.update()

    def _count(self, read: ReadScan, is_known: bool) -> None:
        """Note what became of a scan."""
        record = read.record
        outcomes = self.outcomes
        is_unscored = record.name in self.truths and not record.scores
        paths = output_paths(read.scan, self.options.save).values()
        is_incomplete = is_unscored or any(path not in record.files for path in paths)
        if record.failed:
            failures = outcomes.known if is_known else outcomes.failed
            failures.append(record)
        elif read.state == "new":
            outcomes.new.append(record)
            outcomes.incomplete += is_incomplete
        else:
            outcomes.unchanged.append(record)
            outcomes.incomplete_before += is_incomplete
