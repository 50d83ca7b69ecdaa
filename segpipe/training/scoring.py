"""Scores of a trained network on whole scans, case by case, in their native geometry."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from segpipe.config.scoring import USUAL, Scoring
from segpipe.data.cases import Case
from segpipe.data.prepare import read_labels
from segpipe.metrics import Score, mean_dice_of, score_case
from segpipe.prediction.predictor import Prediction, Predictor
from segpipe.terminal import progress_bar
from segpipe.threads import fit_threads

log = logging.getLogger("segpipe")


@dataclass(frozen=True)
class ScoredCase:
    """A labelled case with its prediction and its scores.

    Attributes:
        case: the case.
        prediction: masks of the network on the scan's own grid.
        truth: label indices on the scan's own grid, shape `(x, y, z)`.
        scores: one per target.
    """

    case: Case
    prediction: Prediction
    truth: Integer[np.ndarray, "x y z"]
    scores: list[Score]

    @property
    def dice(self) -> float:
        """The mean Dice over the targets that either mask has; NaN where there is none."""
        return mean_dice_of(self.scores)


def score_cases(
    predictor: Predictor, cases: Sequence[Case], scoring: Scoring = USUAL
) -> Iterator[ScoredCase]:
    """Segment and score cases one after the other, under a progress bar.

    Args:
        predictor: the predictor of the network.
        cases: cases with label maps.
        scoring: the metrics that are measured, and how.

    Raises:
        DataError: if a case cannot be read.
    """
    plan = predictor.plan
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(cases), note="")
        for case in cases:
            fit_threads(predictor.device)
            prediction = predictor.predict(case.images)
            truth = read_labels(case, plan, prediction.grid).numpy()[0]
            spacing_mm = prediction.grid.spacing_mm
            labels = prediction.labels
            scores = score_case(case.name, labels, truth, spacing_mm, plan.targets, scoring)
            dice = "  ".join(f"{score.label} {score.dice:.4f}" for score in scores)
            log.debug("%s: %s", case.name, dice)
            yield ScoredCase(case, prediction, truth, scores)
            bar.advance(task)


def worst_and_best(cases: Sequence[Case], scores: Sequence[Score], count: int) -> list[Case]:
    """Return `count` cases: half of them those with the lowest mean Dice, half the highest."""
    by_case: dict[str, list[Score]] = {case.name: [] for case in cases}
    for score in scores:
        by_case[score.case].append(score)

    def dice_of(case: Case) -> float:
        return float(np.nan_to_num(mean_dice_of(by_case[case.name])))

    ranked = sorted(cases, key=dice_of)
    best = count // 2
    return [*ranked[: count - best], *ranked[len(ranked) - best :]]
