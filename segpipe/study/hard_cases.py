"""The cases that are found worst, as each variant finds them, side by side."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segpipe import checkpoint
from segpipe.config.data import data_options
from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.data.datasets import open_dataset
from segpipe.data.prepare import read_labels
from segpipe.device import choose_device, choose_format
from segpipe.errors import SegpipeError
from segpipe.metrics import score_case
from segpipe.prediction.predictor import Predictor
from segpipe.reporting.rendering import draw_prediction
from segpipe.study.sweep import SweepRun, Variant
from segpipe.terminal import progress_bar

log = logging.getLogger("segpipe")


def draw_hard_cases(
    variants: Sequence[Variant], count: int, folder: Path
) -> dict[str, dict[str, Path]]:
    """Draws the cases with the lowest Dice, as the mean over all runs, by one run of each variant.

    Where the dataset or a checkpoint is gone, a warning says so and what can be drawn is.

    Args:
        variants: of the sweep.
        count: of cases.
        folder: for the pictures.

    Returns:
        By case and by variant the picture.
    """
    worst = _worst([run for variant in variants for run in variant.runs.values()], count)
    drawn: dict[str, dict[str, Path]] = {case: {} for case in worst}
    with progress_bar() as bar:
        drawing = bar.add_task("drawing worst cases", total=len(worst) * len(variants), note="")
        for number, variant in enumerate(variants):
            try:
                for run, cases in _by_run(variant, worst).items():
                    for case in cases:
                        picture = folder / f"{case.replace('/', '_')}-{number}.png"
                        drawn[case][variant.name] = _draw(run, case, variant.name, picture)
                        bar.advance(drawing)
            except (SegpipeError, OSError) as error:
                log.warning("%s: its masks cannot be drawn: %s", variant.name, error)
    return {case: pictures for case, pictures in drawn.items() if pictures}


def _worst(runs: Sequence[SweepRun], count: int) -> list[str]:
    dice: dict[str, list[float]] = {}
    for run in runs:
        for score in run.scores:
            dice.setdefault(score.case, []).append(score.dice)
    known = {
        case: float(np.nanmean(found)) for case, found in dice.items() if not np.isnan(found).all()
    }
    return sorted(known, key=lambda case: known[case])[:count]


def _by_run(variant: Variant, cases: Sequence[str]) -> Mapping[SweepRun, list[str]]:
    """For each case the first run that validated it."""
    found: dict[SweepRun, list[str]] = {}
    for case in cases:
        for run in variant.runs.values():
            if case in run.split["val"]:
                found.setdefault(run, []).append(case)
                break
    return found


def _draw(run: SweepRun, name: str, variant: str, picture: Path) -> Path:
    options = validate(Train, run.config | {"resume": None})
    device = choose_device(options.trainer.device)
    trained = checkpoint.load(run.folder)
    predictor = Predictor(
        trained.network.to(device),
        trained.plan,
        device,
        choose_format(options.trainer.precision, device),
    )
    case = next(
        one for one in open_dataset(data_options(run.config["data"])).cases if one.name == name
    )
    prediction = predictor.predict(case.images)
    truth = read_labels(case, trained.plan, prediction.grid).numpy()[0]
    scores = score_case(
        name, prediction.labels, truth, prediction.grid.spacing_mm, trained.plan.targets
    )
    title = f"{variant}: Dice {np.nanmean([score.dice for score in scores]):.3f} ({name}, {run.folder.name})"
    draw_prediction(prediction, truth, list(trained.plan.labels)[1:], title, picture)
    return picture
