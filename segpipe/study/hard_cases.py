"""Pictures of the cases with the lowest Dice, as each variant segments them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe import checkpoint
from segpipe.config.data import data_options
from segpipe.data.datasets import open_dataset
from segpipe.data.prepare import read_labels
from segpipe.device import choose_device, choose_format
from segpipe.errors import DataError, SegpipeError
from segpipe.metrics import Score, mean_dice_of, score_case
from segpipe.prediction.predictor import Predictor
from segpipe.reporting.rendering import draw_prediction
from segpipe.stored import read_train_options, read_yaml
from segpipe.study.legend import labels
from segpipe.study.sweep import Sweep, SweepRun, Variant
from segpipe.terminal import progress_bar

log = logging.getLogger("segpipe")


Pictures = dict[str, dict[str, Path]]  # case -> variant -> picture


def draw_hard_cases(sweep: Sweep[SweepRun], count: int, folder: Path) -> Pictures:
    """Draw the cases with the lowest Dice over all runs, by one run of each variant.

    Where the dataset or a checkpoint is gone, a warning says so, and the rest is drawn.

    Args:
        sweep: whose variants segment them.
        count: number of cases.
        folder: in which the pictures are written.

    Returns:
        For each case the picture of each variant.
    """
    runs: list[SweepRun] = []
    for variant in sweep.variants:
        runs += variant.runs.values()
    drawn: Pictures = {case: {} for case in _worst(runs, count)}
    with progress_bar() as bar:
        total = len(drawn) * len(sweep.variants)
        drawing = bar.add_task("drawing worst cases", total=total, note="")
        for number, variant in enumerate(sweep.variants):
            label = labels(sweep)[variant.name]
            try:
                for case, run in _first_runs(variant, list(drawn)).items():
                    picture = folder / f"{case.replace('/', '_')}-{number}.png"
                    drawn[case][variant.name] = draw_case(run, case, label, picture)
                    bar.advance(drawing)
            except (SegpipeError, OSError) as error:
                log.warning("%s: its masks cannot be drawn: %s", variant.name, error)
    return {case: pictures for case, pictures in drawn.items() if pictures}


def _worst(runs: Sequence[SweepRun], count: int) -> list[str]:
    """Return the cases with the lowest mean Dice over runs and targets, the lowest first."""
    scores: dict[str, list[Score]] = {}
    for run in runs:
        for score in run.scores:
            scores.setdefault(score.case, []).append(score)
    dice = {case: mean_dice_of(of_case) for case, of_case in scores.items()}
    known = [case for case in dice if not np.isnan(dice[case])]
    return sorted(known, key=dice.__getitem__)[:count]


def _first_runs(variant: Variant[SweepRun], cases: Sequence[str]) -> dict[str, SweepRun]:
    """Return for each case the first run that validated it; cases of one run are neighbours."""
    runs: dict[str, SweepRun] = {}
    for run in variant.runs.values():
        for case in cases:
            if case in run.split["val"]:
                runs.setdefault(case, run)
    return runs


def draw_case(run: SweepRun, name: str, label: str, picture: Path) -> Path:
    """Draw a case of a run's dataset with the mask of its best checkpoint; return the picture.

    Args:
        run: whose network segments it.
        name: the name of the case.
        label: the label of the variant, for the title.
        picture: PNG to write.

    Raises:
        SegpipeError, OSError: if the dataset or the checkpoint is gone.
    """
    file = run.folder / "config.yaml"
    options = read_train_options(file, read_yaml(file))
    device = choose_device(options.trainer.device)
    trained = checkpoint.load(run.folder)
    number_format = choose_format(options.trainer.precision, device)
    predictor = Predictor.of(trained, device, number_format)
    dataset = open_dataset(data_options(run.config["data"]))
    case = next((case for case in dataset.cases if case.name == name), None)
    if case is None:
        raise DataError(f"{name} is no case of {dataset.name} any more")
    prediction = predictor.predict(case.images)
    truth = read_labels(case, trained.plan, prediction.grid).numpy()[0]
    spacing_mm = prediction.grid.spacing_mm
    scores = score_case(name, prediction.labels, truth, spacing_mm, trained.plan.targets)
    title = f"{label}: Dice {mean_dice_of(scores):.3f} ({name}, {run.folder.name})"
    names = trained.plan.label_names
    draw_prediction(prediction, truth, names, title, picture, trained.plan.unit)
    return picture
