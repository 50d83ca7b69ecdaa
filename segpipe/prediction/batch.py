"""Many scans, each isolated: one that fails is reported and the rest are done."""

import csv
import io
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segpipe import checkpoint
from segpipe.config.predict import Predict
from segpipe.data.cases import Case
from segpipe.data.prepare import mask_dtype, read_labels
from segpipe.device import choose_device, choose_format
from segpipe.errors import ConfigError, DataError
from segpipe.files import write_text
from segpipe.metrics import Score, score_case, write_scores
from segpipe.prediction.predictor import Prediction, Predictor, timed
from segpipe.prediction.scans import Scan, find_scans
from segpipe.prediction.show import draw_prediction, show_scores
from segpipe.terminal import progress_bar, show_table
from segpipe.volumes import IMAGES, VOLUMES, write_mask

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
    assert options.checkpoint is not None
    assert options.input is not None
    assert options.output is not None
    device = choose_device(options.device)
    trained = checkpoint.load_ensemble(options.checkpoint, options.mirror_axes)
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
    assert options.output is not None
    outcome = Outcome(scan.name)
    try:
        prediction = predictor(scan.images)
        with timed(prediction.seconds, "write"):
            mask = predictor.mask(prediction)
            write_mask(mask, scan.images[0], options.output / scan.mask_name, mask_dtype(predictor.plan.labels))
        _measure(outcome, scan, prediction, predictor, truth, options)
    except DataError as error:
        outcome.reason = str(error)
    except Exception as error:  # whatever is wrong with this scan, the others can still be done
        log.debug("%s failed", scan.name, exc_info=True)
        outcome.reason = f"{scan.images[0]}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return outcome


def _measure(
    outcome: Outcome, scan: Scan, prediction: Prediction, predictor: Predictor, truth: Path | None, options: Predict
) -> None:
    """Volumes, scores against the truth, and a picture."""
    assert options.output is not None
    labels, grid = predictor.plan.labels, prediction.grid
    names = list(labels)[1:]
    outcome.seconds = prediction.seconds
    counts = np.bincount(prediction.labels.ravel(), minlength=len(labels))[1:]
    outcome.voxels = [int(count) for count in counts]
    outcome.volumes_ml = [count * grid.voxel_ml for count in outcome.voxels]
    expected = None
    if truth is not None:
        expected = read_labels(Case(scan.name, scan.images, truth), predictor.plan, grid).numpy()[0]
        outcome.scores = score_case(scan.name, prediction.labels, expected, grid.spacing_mm, predictor.plan.targets)
    if options.overlays:
        draw_prediction(prediction, expected, names, scan.name, options.output / "overlays" / f"{scan.name}.png")


def _truth(scan: Scan, folder: Path) -> Path:
    """The scan's label map in a folder of them.

    Raises:
        ConfigError: if it is not there.
    """
    found = [path for path in sorted(folder.glob(f"{scan.name}.*")) if path.name.lower().endswith(VOLUMES + IMAGES)]
    if not found:
        raise ConfigError(f"truth={folder}: holds no label map for {scan.name}; it must have the scan's name")
    return found[0]


def _write_table(path: Path, outcomes: list[Outcome], names: list[str]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    seconds = [f"{stage}_seconds" for stage in STAGES]
    table.writerow(
        ["case", "status", "reason", *seconds, *[f"{name} voxels" for name in names], *[f"{name} mL" for name in names]]
    )
    for one in outcomes:
        spent = [f"{one.seconds[stage]:.3f}" if stage in one.seconds else "" for stage in STAGES]
        volumes = [f"{volume:.4f}" for volume in one.volumes_ml]
        table.writerow([one.name, "failed" if one.reason else "done", one.reason, *spent, *one.voxels, *volumes])
    write_text(path, text.getvalue())


def _report(outcomes: list[Outcome], options: Predict, names: list[str]) -> int:
    assert options.output is not None
    failed = [one for one in outcomes if one.reason]
    done = [one for one in outcomes if not one.reason]
    if done:
        rows = [[one.name, *[f"{volume:.2f}" for volume in one.volumes_ml]] for one in done]
        show_table("volumes, mL", ["scan", *names], rows)
    scores = [score for one in done for score in one.scores]
    if scores:
        write_scores(scores, options.output / "scores.csv")
        show_scores(scores, f"{len(done)} scans against {options.truth}")
    log.info("%d of %d masks written to %s", len(done), len(outcomes), options.output)
    for one in failed:
        log.error("failed: %s", one.reason)
    return SOME_FAILED if failed else 0
