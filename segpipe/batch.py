"""Many scans, each isolated: one that fails is reported and the rest are done, and nothing is done twice."""

import errno
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segpipe import checkpoint
from segpipe.config.predict import Predict
from segpipe.data.cases import Case
from segpipe.data.prepare import PreparedScan, prepare_scan, read_labels
from segpipe.device import choose_device, choose_format, hold_memory
from segpipe.errors import DataError
from segpipe.files import digest
from segpipe.io.volumes import read_grid
from segpipe.metrics import score_case, write_scores
from segpipe.prediction.outputs import check_targets, picture, write_outputs, write_predictions
from segpipe.prediction.postprocessing import clean, cleaning
from segpipe.prediction.predictor import Prediction, Predictor, ProgressCallback, timed
from segpipe.prediction.prefetch import ahead, interruption
from segpipe.prediction.records import ScanRecord, read_records, settled, tidy, write_records
from segpipe.prediction.scans import Scan, find_scans, find_truth
from segpipe.reporting.prediction_page import warnings_for, write_index
from segpipe.reporting.rendering import draw_prediction, show_scores
from segpipe.terminal import progress_bar, show_next, show_table
from segpipe.text import first_line

log = logging.getLogger("segpipe")
SOME_FAILED = 3
ASKED = (
    "overlap",
    "mirror_axes",
    "overlays",
    "save",
    "skip_air",
    "backend",
)  # beside weights, what masks depend on
CLEANING = ("labels", "keep_largest", "min_volume_ml")


@dataclass
class Waiting:
    """A scan that was read while the network computed another.

    Attributes:
        scan: the scan.
        outcome: what is known of it; with a reason where it could not be read.
        prepared: as the network sees it; None where it could not be read, or nothing is left to do.
    """

    scan: Scan
    outcome: ScanRecord
    prepared: PreparedScan | None = None


def predict_batch(options: Predict) -> int:
    """Writes a mask for each scan, `predictions.csv`, pictures, and scores where the truth is given.

    While the network computes one scan the next is read, and the last is written. A mask that is there already, made of
    the same content by the same weights and settings, is left as it is.

    Returns:
        The exit status: 0 when all scans are done, 3 when some failed.

    Raises:
        ConfigError: if the checkpoint, the input or the output cannot be used.
        DataError: if the disk is full, or the batch was interrupted.
    """
    assert options.checkpoint is not None
    assert options.input is not None
    assert options.output is not None
    device = choose_device(
        "cpu" if options.backend == "openvino" and options.device == "auto" else options.device
    )
    hold_memory(device)
    number_format = choose_format(options.precision, device)
    trained = checkpoint.load_ensemble(options.checkpoint, options.mirror_axes)
    predictor = Predictor(
        trained.network.to(device),
        trained.plan,
        device,
        number_format,
        options.overlap,
        options.batch_size,
        options.save,
        options.output,
        options.skip_air,
        options.backend,
        options.compile,
    )
    scans = find_scans(options.input, options.output, len(trained.plan.channels), options.recursive)
    check_targets(scans, options.save, options.overlays)
    weights = digest([checkpoint.find(path) for path in options.checkpoint])
    asked = options.model_dump(mode="json", include={*ASKED, *CLEANING})
    settings = [weights, number_format, asked]
    batch = Batch(options.output, scans, predictor, options, settings)
    log.info("%d scans, %s in %s", len(scans), device, number_format)
    try:
        batch.run()
    finally:
        batch.summarise()
    return _report(batch.outcomes(), options, batch.names)


class Batch:
    """The scans of one call, on their way into one folder.

    Args:
        folder: for the masks, made if it is not there.
        scans: in their order.
        predictor: of the network.
        options: of the call.
        settings: plain values on which a mask depends, beside its scan.

    Raises:
        ConfigError: if a truth is missing, or the folder's manifest is damaged.
    """

    def __init__(
        self,
        folder: Path,
        scans: Sequence[Scan],
        predictor: Predictor,
        options: Predict,
        settings: list[Any],
    ) -> None:
        self.folder, self.scans, self.predictor = folder, scans, predictor
        self.options, self.settings = options, settings
        self.names = list(predictor.plan.labels)[1:]
        self.cleaning = cleaning(options, predictor.plan.labels)
        self.truths = (
            {scan.name: find_truth(scan, options.truth) for scan in scans} if options.truth else {}
        )
        folder.mkdir(parents=True, exist_ok=True)
        tidy(folder)
        self.known = read_records(folder)

    def run(self) -> None:
        """Does what is missing or changed.

        Raises:
            DataError: if the disk is full, or it was interrupted; what is done is kept.
        """
        writing: deque[tuple[ScanRecord, Future[None] | None]] = deque()
        with _one_core() as reader, _one_core() as writer, interruption() as asked:
            with progress_bar() as bar:
                scans = bar.add_task("scans", total=len(self.scans), note="")
                windows = bar.add_task("windows", total=1, visible=False, note="")
                for number, waiting in enumerate(ahead(reader, self._read, self.scans)):
                    bar.reset(windows, description="windows", note=waiting.scan.name)

                    def watch(done: int, total: int, number: int = number) -> None:
                        bar.update(scans, completed=number + done / total)
                        bar.update(windows, completed=done, total=total, visible=True)

                    writing.append((waiting.outcome, self._segment(waiting, writer, watch)))
                    if len(writing) > 1:
                        self._note(*writing.popleft())
                    bar.update(scans, completed=number + 1)
                    if bar.disable:  # no terminal: a line for each scan
                        log.info("%d of %d: %s", number + 1, len(self.scans), waiting.scan.name)
                    if asked.is_set():
                        break
            while writing:
                self._note(*writing.popleft())
        if asked.is_set():
            done = sum(1 for scan in self.scans if scan.name in self.known)
            raise DataError(
                f"interrupted: {done} of {len(self.scans)} scans are settled; run again to go on"
            )

    def outcomes(self) -> list[ScanRecord]:
        """What became of the scans so far, in their order."""
        return [self.known[scan.name] for scan in self.scans if scan.name in self.known]

    def summarise(self) -> None:
        """Writes `scores.csv`, where the truth is given, and `index.html`.

        Raises:
            DataError: if the disk is full.
        """
        scores = [score for one in self.outcomes() for score in one.scores if not one.reason]
        if scores:
            write_scores(scores, self.folder / "scores.csv")
        write_index(self.folder, self.known, len(self.scans), self.options)

    def _read(self, scan: Scan) -> Waiting:
        outcome, truth = (
            ScanRecord(scan.name, images=[str(image) for image in scan.images]),
            self.truths.get(scan.name),
        )
        try:
            outcome.made_from = digest([*scan.images, *([truth] if truth else [])], *self.settings)
            known = self.known.get(scan.name)
            if known is not None and settled(
                known, outcome.made_from, self.folder, self.options.retry_failed
            ):
                return Waiting(scan, known)
            self.predictor.fallbacks_for(
                read_grid(scan.images[0])
            )  # what is too large is not even read
            with timed(outcome.seconds, "read"):
                return Waiting(scan, outcome, prepare_scan(scan.images, self.predictor.plan))
        except Exception as error:  # whatever is wrong with this scan, the others can still be done
            outcome.reason = _reason(scan, error)
            return Waiting(scan, outcome)

    def _segment(
        self, waiting: Waiting, writer: ThreadPoolExecutor, watch: ProgressCallback
    ) -> Future[None] | None:
        if waiting.prepared is None:
            return None
        try:
            prediction = self.predictor.segment(waiting.prepared, watch)
        except Exception as error:
            waiting.outcome.reason = self._failure(waiting.scan, error)
            return None
        if prediction.note:
            log.warning("%s: %s", waiting.scan.name, prediction.note)
        waiting.outcome.note = prediction.note
        return writer.submit(self._write, waiting, prediction)

    def _write(self, waiting: Waiting, prediction: Prediction) -> None:
        outcome, scan = waiting.outcome, waiting.scan
        try:
            outcome.seconds |= prediction.seconds
            cleaned = clean(prediction.labels, prediction.grid.voxel_ml, *self.cleaning)
            prediction = replace(prediction, labels=cleaned)
            with timed(outcome.seconds, "write"):
                files = write_outputs(
                    prediction, scan, self.predictor.plan, self.options.save, self.folder
                )
            outcome.files = {
                file.relative_to(self.folder).as_posix(): digest([file]) for file in files
            }
            self._measure(outcome, scan, prediction)
        except Exception as error:
            outcome.reason = self._failure(scan, error)

    def _failure(self, scan: Scan, error: Exception) -> str:
        """Why a scan failed.

        Raises:
            DataError: if the disk is full, since no other scan would fare better.
        """
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DataError(
                f"{self.folder}: the disk is full; make room and run again to go on"
            ) from None
        return _reason(scan, error)

    def _measure(self, outcome: ScanRecord, scan: Scan, prediction: Prediction) -> None:
        """Volumes, scores against the truth, and a picture."""
        plan, grid, truth = self.predictor.plan, prediction.grid, self.truths.get(scan.name)
        outcome.labels = (
            self.names
        )  # counted one by one: `bincount` would make 8 bytes of every voxel
        outcome.voxels = [
            int(np.count_nonzero(prediction.labels == number))
            for number in range(1, len(plan.labels))
        ]
        outcome.ids = list(plan.labels.values())[1:]
        outcome.volumes_ml = [count * grid.voxel_ml for count in outcome.voxels]
        outcome.warnings = [
            note for note in [outcome.note, *warnings_for(prediction, outcome, plan)] if note
        ]
        expected = None
        if truth is not None:
            expected = read_labels(Case(scan.name, scan.images, truth), plan, grid).numpy()[0]
            outcome.scores = score_case(
                scan.name, prediction.labels, expected, grid.spacing_mm, plan.targets
            )
        if self.options.overlays:
            draw_prediction(
                prediction, expected, self.names, scan.name, self.folder / picture(scan)
            )
            outcome.drawn = True

    def _note(self, outcome: ScanRecord, written: Future[None] | None) -> None:
        if written is not None:
            written.result()
        self.known[outcome.name] = outcome
        write_records(self.folder, self.known)
        write_predictions(self.folder / "predictions.csv", self.outcomes(), self.names)


def _one_core() -> ThreadPoolExecutor:
    """A thread that uses one core: teams of more would only wait for cores on which the network computes."""
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))


def _reason(scan: Scan, error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error) if str(scan.images[0]) in str(error) else f"{scan.images[0]}: {error}"
    log.debug("%s failed", scan.name, exc_info=error)
    return f"{scan.images[0]}: {type(error).__name__}: {first_line(error)}"


def _report(outcomes: list[ScanRecord], options: Predict, names: list[str]) -> int:
    assert options.output is not None
    failed = [one for one in outcomes if one.reason]
    done = [one for one in outcomes if not one.reason]
    if done:
        rows = [[one.name, *[f"{volume:.2f}" for volume in one.volumes_ml]] for one in done]
        show_table("volumes, mL", ["scan", *names], rows)
    scores = [score for one in done for score in one.scores]
    if scores:
        show_scores(scores, f"{len(done)} scans against {options.truth}")
    log.info("%d of %d masks written to %s", len(done), len(outcomes), options.output)
    show_next(
        [("look at", options.output / "index.html"), ("table", options.output / "predictions.csv")]
    )
    for one in failed:
        log.error("failed: %s", one.reason)
    return SOME_FAILED if failed else 0
