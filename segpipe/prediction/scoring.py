"""Score a mask against the truth."""

import logging
from pathlib import Path

import numpy as np

from segpipe.config.scoring import Scoring
from segpipe.data.cases import Case
from segpipe.data.prepare import read_labels
from segpipe.io.content import content_files
from segpipe.io.notes import collecting_notes, log_first
from segpipe.metrics import score_case
from segpipe.plan import Plan
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.predictor import Prediction
from segpipe.prediction.reasons import one_line
from segpipe.prediction.records import ScanRecord

log = logging.getLogger("segpipe")


def add_scores(
    record: ScanRecord,
    scan: Scan,
    truth: Path | None,
    prediction: Prediction,
    plan: Plan,
    scoring: Scoring,
) -> np.ndarray | None:
    """Add the scores of a mask to its record; return the truth on the scan's grid, `(x, y, z)`.

    A truth that cannot be used is a warning of the record, and None is returned.
    """
    if truth is None:
        return None
    grid = prediction.grid
    try:
        content_files([truth])  # raises where reading would never end
        with collecting_notes() as notes:
            labels = read_labels(Case(scan.name, scan.images, truth), plan, grid).numpy()[0]
        for note in notes:
            record.warnings.append(note.text)
            log_first(note)
        record.scores = score_case(
            scan.name, prediction.labels, labels, grid.spacing_mm, plan.targets, scoring
        )
    except Exception as error:  # the mask is done, whatever is wrong with its truth
        why = one_line(truth, error)
        record.warnings.append(f"not scored: {why}")
        log.warning("%s: not scored: %s", scan.name, why)
        return None
    return labels
