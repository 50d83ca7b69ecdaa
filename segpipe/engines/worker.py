"""A worker settles scans one after another: a scan that fails is reported, and nothing done twice.

While the network computes one scan, the next is read and the last is written.
"""

import errno
import logging
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event as Flag

from segpipe.config.predict import Predict
from segpipe.data.prepare import prepare_scan
from segpipe.engines.events import Advanced, Claimed, Settled, Started, Tell
from segpipe.errors import DataError
from segpipe.files import digest
from segpipe.io.notes import collecting
from segpipe.io.volumes import read_grid, shown_unit
from segpipe.prediction.calls import Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.dicom_outputs import DicomDetails
from segpipe.prediction.mask_warnings import warnings_for
from segpipe.prediction.merged import MergedPredictor
from segpipe.prediction.opening import mask_settings, open_predictor, scoring_settings
from segpipe.prediction.outputs import add_quality, measure_volumes, output_paths, write_outputs
from segpipe.prediction.places import LOCAL, Places
from segpipe.prediction.postprocessing import clean, cleaning_arguments
from segpipe.prediction.predictor import Prediction, Predictor
from segpipe.prediction.prefetch import count_helpers, one_core, prefetched
from segpipe.prediction.reasons import reason
from segpipe.prediction.record_store import RecordStore
from segpipe.prediction.records import ReadScan, ScanRecord, is_known_failure, is_up_to_date
from segpipe.prediction.scans import readable_files
from segpipe.prediction.scoring import add_scores
from segpipe.prediction.timing import timed
from segpipe.remote import RemoteError
from segpipe.reporting.rendering import draw_prediction
from segpipe.threads import fit_threads

log = logging.getLogger("segpipe")
FULL = {errno.ENOSPC, errno.EDQUOT}  # a disk, or what a user may take of it
NEVER = Flag()


def open_worker(options: Predict, family: str = "", places: Places = LOCAL) -> "Worker":
    """Return a worker with the network that the options name.

    Args:
        options: the options of the call.
        family: name of the call that this worker belongs to, where that is another process.
        places: the places that scans come from and masks go to.

    Raises:
        ConfigError: if a checkpoint or an option cannot be used.
    """
    predictor, dicom = open_predictor(options)
    return Worker(options, predictor, dicom, family, places)


class Worker:
    """Settles scans of one call.

    Args:
        options: the options of the call; its output is there.
        predictor: the predictor of the network.
        dicom: what its DICOM files say; None where it writes none.
        family: name of the call, as `open_worker` takes it.
        places: the places that scans come from and masks go to.
    """

    def __init__(
        self,
        options: Predict,
        predictor: Predictor | MergedPredictor,
        dicom: DicomDetails | None = None,
        family: str = "",
        places: Places = LOCAL,
    ) -> None:
        assert options.output is not None
        self.folder = options.output
        self.dicom = dicom
        self.places = places
        self.predictor = predictor
        self.options = options
        self.plan = predictor.plan
        self.settings = mask_settings(options, predictor)
        self.cleaning = cleaning_arguments(predictor.postprocess, self.plan.labels, options.labels)
        self.store = RecordStore(self.folder, reads_all=False)
        shares = options.claim or options.shard is not None
        self.calls = Calls(self.folder, digest([], *self.settings), shares, family)

    def settle(self, scans: Iterable[Scan], tell: Tell, stop: Flag = NEVER) -> None:
        """Predict what is missing or changed of some scans, and store a record of each.

        Args:
            scans: they are taken, one or for a GPU several, while the one before is computed.
            tell: is called with what becomes of them.
            stop: ends the work after the scan in hand, once it is set.

        Raises:
            DataError: if the disk is full.
        """
        writing: deque[tuple[ReadScan, Future[None] | None]] = deque()
        helpers = count_helpers(self.predictor.device)
        fit_threads(self.predictor.device)
        with one_core(helpers) as reader, one_core(helpers) as writer:
            for read in prefetched(reader, self._read, scans, helpers):
                if read.state == "claimed":
                    tell(Claimed(read.scan))
                    continue
                tell(Started(read.scan.name))
                writing.append((read, self._segment(read, writer, tell)))
                if len(writing) > helpers:
                    self._finish(*writing.popleft(), tell)
                if stop.is_set():
                    break
            while writing:
                self._finish(*writing.popleft(), tell)

    def _read(self, scan: Scan) -> ReadScan:
        """Read a scan, unless its files are up to date or the memory cannot hold it."""
        record = ScanRecord(scan.name, images=list(map(str, scan.images)), reason=scan.problem)
        if scan.problem:
            return ReadScan(scan, record)
        try:
            record.made_from = self._made_from(scan)
            record.truth = str(scan.truth or "")
            done = self._done_before(record)
            if done is not None:
                return ReadScan(scan, done, state="unchanged")
            if self.options.claim:
                if not self.calls.claim(scan.name):
                    return ReadScan(scan, record, state="claimed")
                done = self._done_before(record)  # by the call that has just released it
                if done is not None:
                    self.calls.release(scan.name)
                    return ReadScan(scan, done, state="unchanged")
            with timed(record.seconds, "read"), collecting() as record.warnings:
                scan = self.places.opened(scan)
                grid = read_grid(scan.images[0])
                self.predictor.fallbacks_for(grid)  # raises before it is read
                record.unit = shown_unit(scan.images[0])
                entrance = self.predictor.entrance(grid)
                prepared = prepare_scan(scan.images, self.plan, device=entrance)
            for warning in record.warnings:
                log.warning("%s", warning)
            return ReadScan(scan, record, prepared)
        except Exception as error:  # whatever is wrong with this scan, the others can be done
            record.reason = self._failure(scan, record, error)
            return ReadScan(scan, record)

    def _made_from(self, scan: Scan) -> str:
        """Return a name for all on which the files and the scores of a scan depend.

        Raises:
            DataError: if a file of the scan cannot be read.
        """
        files, values = self.places.identity(scan)
        settings = [*self.settings, *values]
        if scan.truth is not None:
            files += readable_files(scan.truth)
            settings += scoring_settings(self.options)
        return digest(files, *settings)

    def _done_before(self, record: ScanRecord) -> ScanRecord | None:
        """Return the record of a scan where an earlier call, or another one, has settled it."""
        earlier = self.store.latest(record.name)
        is_there = partial(self.places.is_there, self.folder)
        if earlier is None or not is_up_to_date(
            earlier, record.made_from, self.options.retry_failed, is_there
        ):
            return None
        return replace(earlier, truth=record.truth)

    def _segment(
        self, read: ReadScan, writer: ThreadPoolExecutor, tell: Tell
    ) -> Future[None] | None:
        """Segment a scan, and have its files written; return None where there is none to write."""
        if read.prepared is None:
            return None
        name = read.scan.name

        def advanced(done: int, total: int) -> None:
            fit_threads(self.predictor.device)
            tell(Advanced(name, done, total))

        try:
            prediction = self.predictor.segment(read.prepared, advanced)
        except Exception as error:
            read.record.reason = self._failure(read.scan, read.record, error)
            return None
        if prediction.note:
            log.warning("%s: %s", name, prediction.note)
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
            record.warnings += warnings_for(prediction, record, self.plan, self.predictor.seen)
            truth = add_scores(record, scan, scan.truth, prediction, self.plan, self.options)
            if self.options.overlays:
                picture = self.folder / record.picture
                names = self.plan.label_names
                draw_prediction(prediction, truth, names, "", picture, record.unit)
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

    def _finish(self, read: ReadScan, written: Future[None] | None, tell: Tell) -> None:
        """Wait until a scan is written, store its record, and tell of it."""
        if written is not None:
            written.result()
        record = read.record
        self.places.settle(record)
        is_new = read.state == "new"
        is_known = is_known_failure(record, self.store.latest(record.name))
        if is_new:
            self.places.keep_record(self.store.write(record))
            self.calls.release(record.name)
        self.store.forget(record.name)  # so that the memory does not grow with their number
        is_unscored = read.scan.truth is not None and not record.scores
        paths = output_paths(read.scan, self.options.save).values()
        is_incomplete = is_unscored or any(path not in record.files for path in paths)
        tell(Settled(record, is_new, is_known, is_incomplete))
