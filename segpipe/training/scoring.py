"""A run's best checkpoint scored on whole scans, which are drawn too, and kept for the viewer of the run's page."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from segpipe import checkpoint
from segpipe.config.page import RunPage
from segpipe.data.cases import Case
from segpipe.data.prepare import read_labels
from segpipe.device import NumberFormat
from segpipe.metrics import Score, score_case, write_scores
from segpipe.prediction.predictor import Prediction, Predictor
from segpipe.prediction.show import draw_prediction, put_on_shelf, show_scores
from segpipe.report.plots import draw_curves
from segpipe.report.viewer import Shelf
from segpipe.terminal import progress_bar

log = logging.getLogger("segpipe")


def score(
    folder: Path, cases: Sequence[Case], device: torch.device, number_format: NumberFormat, page: RunPage
) -> Shelf | None:
    """Scores a run's best checkpoint on whole scans: `validation.csv`, `overlays/`, `curves.png` and a table.

    Args:
        folder: the run's folder.
        cases: that validate.
        device: that computes.
        number_format: in which it computes.
        page: how many cases are drawn, and whether volumes are kept for the viewer.

    Returns:
        The volumes of the worst cases, where the viewer is asked for.

    Raises:
        SegpipeError: if the run has no checkpoint, or a case cannot be read.
    """
    trained = checkpoint.load(folder)
    plan = trained.plan
    predictor = Predictor(trained.network.to(device), plan, device, number_format)
    shelf = Shelf(page.viewer_mib) if page.viewer else None
    draws_all = len(cases) <= page.cases
    scores: list[Score] = []

    def draw(case: Case, prediction: Prediction, truth: np.ndarray) -> None:
        picture = folder / "overlays" / f"{case.name}.png"
        draw_prediction(prediction, truth, list(plan.labels)[1:], case.name, picture)

    with progress_bar() as bar:
        scoring = bar.add_task("scoring", total=len(cases), note="")
        for case in cases:
            prediction = predictor.predict(case.images)
            truth = read_labels(case, plan, prediction.grid).numpy()[0]
            own = score_case(case.name, prediction.labels, truth, prediction.grid.spacing_mm, plan.targets)
            scores += own
            log.debug("%s: %s", case.name, "  ".join(f"{one.label} {one.dice:.4f}" for one in own))
            if draws_all:
                draw(case, prediction, truth)
            if shelf is not None:
                put_on_shelf(shelf, case.name, prediction, truth, mean_of(own))
            bar.advance(scoring)
    write_scores(scores, folder / "validation.csv")
    draw_curves(folder / "metrics.csv", folder / "curves.png")
    if not draws_all:  # which are the worst and the best is known only now
        for case in _worst_and_best(cases, scores, page.cases):
            prediction = predictor.predict(case.images)
            draw(case, prediction, read_labels(case, plan, prediction.grid).numpy()[0])
    show_scores(scores, f"{len(cases)} validation case{'' if len(cases) == 1 else 's'}")
    return shelf


def mean_of(scores: Sequence[Score]) -> float:
    """The mean Dice of one case over what either mask has; NaN where neither has anything."""
    known = [one.dice for one in scores if not np.isnan(one.dice)]
    return float(np.mean(known)) if known else float("nan")


def _worst_and_best(cases: Sequence[Case], scores: Sequence[Score], count: int) -> list[Case]:
    dice = {case.name: mean_of([one for one in scores if one.case == case.name]) for case in cases}
    ranked = sorted(cases, key=lambda case: float(np.nan_to_num(dice[case.name])))
    best = count // 2
    return [*ranked[: count - best], *ranked[len(ranked) - best :]]
