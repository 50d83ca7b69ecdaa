"""Many scans, each isolated: one that fails is reported and the rest are done."""

import csv
import io
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segpipe import checkpoint
from segpipe.config.predict import Predict
from segpipe.data.layouts import Case
from segpipe.data.prepare import mask_dtype, read_labels
from segpipe.device import choose_device, choose_format
from segpipe.errors import ConfigError, DataError
from segpipe.files import write_text
from segpipe.metrics import Score, score_case, summarise, write_scores
from segpipe.prediction.predictor import Prediction, Predictor
from segpipe.prediction.scans import Scan, find_scans
from segpipe.report import draw_overlay
from segpipe.terminal import progress_bar, show_table
from segpipe.volumes import write_mask

log = logging.getLogger("segpipe")
SOME_FAILED = 3
STAGES = ("read", "network", "resample", "write")


@dataclass
class Outcome:
    """What became of one scan."""

    name: str
    reason: str = ""  # empty when it is done
    seconds: dict[str, float] = field(default_factory=dict)
    volumes_ml: list[float] = field(default_factory=list)  # per label, background left out
    voxels: list[int] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)


def predict_batch(options: Predict) -> int:
    """Writes a mask for each scan, `predictions.csv`, pictures, and scores where the truth is given.

    Returns:
        The exit status: 0 when all scans are done, 3 when some failed.

    Raises:
        ConfigError: if the checkpoint, the input or the output cannot be used.
    """
    assert options.checkpoint and options.input and options.output
    trained, device = checkpoint.load(options.checkpoint), choose_device(options.device)
    number_format = choose_format(options.precision, device)
    predictor = Predictor(
        trained.network.to(device), trained.plan, device, number_format, options.overlap, options.windows
    )
    scans = find_scans(options.input, options.output, len(trained.plan.channels))
    truths = {scan.name: _truth(scan, options.truth) for scan in scans} if options.truth else {}
    options.output.mkdir(parents=True, exist_ok=True)
    log.info("%d scans, %s in %s", len(scans), device, number_format)
    outcomes: list[Outcome] = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(scans), note="")
        for scan in scans:
            outcomes.append(_predict_one(scan, predictor, options, truths.get(scan.name)))
            _write_table(options.output / "predictions.csv", outcomes, list(trained.plan.labels)[1:])
            bar.advance(task)
    return _report(outcomes, options, list(trained.plan.labels)[1:])


def _predict_one(scan: Scan, predictor: Predictor, options: Predict, truth: Path | None) -> Outcome:
    assert options.output
    outcome = Outcome(scan.name)
    try:
        prediction = predictor(scan.images)
        target = options.output / scan.mask_name
        write_mask(predictor.mask(prediction), scan.images[0], target, mask_dtype(predictor.plan.labels))
        _measure(outcome, scan, prediction, predictor, truth, options)
    except DataError as error:
        outcome.reason = str(error)
    except Exception as error:  # whatever is wrong with this scan, the others can still be done
        log.debug("%s failed", scan.name, exc_info=True)
        outcome.reason = f"{scan.images[0]}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if outcome.reason:
        log.error("failed: %s", outcome.reason)
    return outcome
