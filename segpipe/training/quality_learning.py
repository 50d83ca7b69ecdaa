"""Learn to predict the quality of masks, on validation cases and on copies that are made worse.

A trained network segments most validation cases well, so these alone do not show what a bad mask
looks like. The copies have noise, blur, a bias field, coarser voxels, an end that is missing, or
another contrast.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from segpipe import checkpoint
from segpipe.data.cases import Case
from segpipe.data.degradation import degrade
from segpipe.data.prepare import prepare_volume, read_labels
from segpipe.errors import DataError
from segpipe.files import write_json
from segpipe.geometry import Grid
from segpipe.io.volumes import load, read
from segpipe.metric_record import mean_of_known
from segpipe.metrics import dice_per_target
from segpipe.prediction.postprocessing import clean
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.quality_measures import measure_quality
from segpipe.quality import FEATURES, QualityModel, Usual, features_of, usual_of
from segpipe.text import count

log = logging.getLogger("segpipe")
FILE = "quality.json"
FEWEST_CASES = 5
MOST_CASES = 60  # beyond these, a model learns little more
COPIES = (10, 60)  # the least and the largest number of copies
SECONDS = 300.0  # that copies may take at most, beyond the least number of them
SHARE = 0.1  # of the training's time that they may take
PRIOR = 0.05  # Dice that each step of a feature costs where the scans do not say otherwise
PENALTY = 3.0  # of squared differences from the prior, of standardised features
STRENGTHS = {  # from, to; of a blur in voxels of the finest spacing
    "noise": (0.3, 2.0),
    "blur_mm": (1.0, 4.0),
    "bias": (0.3, 1.5),
    "coarser": (2.0, 6.0),
    "cut_off": (0.2, 0.6),
    "inverted": (0.5, 1.0),
}


class Change(NamedTuple):
    """What is done to a scan; nothing where the strength is 0."""

    kind: str = ""
    strength: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class JudgedScan:
    """A scan whose mask was measured and compared with the truth.

    Attributes:
        case: its name.
        change: what was done to it.
        measured: the measurements of the scan and its mask.
        dice: mean over the targets; 1 where neither mask has any.
    """

    case: str
    change: Change
    measured: dict[str, float]
    dice: float


def judge_scan(predictor: Predictor, case: Case, change: Change) -> JudgedScan:
    """Return a case, or a copy that is made worse, with its measurements and its Dice.

    Raises:
        DataError: if the case cannot be read, or the copy not be segmented.
    """
    plan = predictor.plan
    volume = read(case.images, partial(load, nan=plan.nan))
    strength = change.strength
    if change.kind == "blur_mm":
        strength *= float(Grid.of(volume).spacing_mm.min())
    changed = degrade(volume, change.kind, strength, change.seed)
    prepared = prepare_volume(changed, plan, case.name)
    prediction = predictor.with_confidence().segment(prepared)
    labels = clean(prediction.labels, prediction.grid.voxel_ml, **predictor.cleaning)
    prediction = replace(prediction, labels=labels)
    truth = read_labels(case, plan, prediction.grid).numpy()[0]
    mean = mean_of_known(dice_per_target(labels, truth, plan.targets), none=1.0)
    return JudgedScan(case.name, change, measure_quality(prediction, plan), mean)


def store_quality(
    folder: Path, predictor: Predictor, cases: Sequence[Case], seed: int, trained: float = math.inf
) -> None:
    """Learn on validation cases, store the model in a run's best checkpoint and `quality.json`.

    Args:
        folder: the folder of the run.
        predictor: the predictor of its best network; masks get the post-processing that is stored
            with it.
        cases: cases that did not train it.
        seed: the seed of what is done to the copies.
        trained: time of the training, s, of which the copies may take a tenth.

    Raises:
        SegpipeError: if a case cannot be read, or the checkpoint not be written.
    """
    if len(cases) < FEWEST_CASES:
        log.info(
            "quality of masks: not learnt of %s, %d are needed",
            count(len(cases), "validation case"),
            FEWEST_CASES,
        )
        return
    predictor = predictor.with_postprocess(checkpoint.load(folder).postprocess)
    model = learn_quality(list(judge_scans(predictor, cases, seed, min(SECONDS, SHARE * trained))))
    assert model is not None
    stored = model.model_dump(mode="json")
    checkpoint.amend(folder / "checkpoints" / "best.ckpt", quality=stored)
    write_json(folder / FILE, {**stored, "line": str(model)})
    log.info("quality of masks: %s", model)


def judge_scans(
    predictor: Predictor, cases: Sequence[Case], seed: int, seconds: float = SECONDS
) -> Iterator[JudgedScan]:
    """Yield the cases, and then copies of them, each made worse in one way.

    Args:
        predictor: the predictor of the network.
        cases: cases that did not train it.
        seed: the seed of what is done to the copies.
        seconds: the seconds that the copies may take, beyond the least number of them.

    Raises:
        DataError: if a case cannot be read.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(cases))[:MOST_CASES]
    start = time.perf_counter()
    for index in order:
        yield judge_scan(predictor, cases[index], Change())
    per_scan = (time.perf_counter() - start) / len(order)
    copies = int(np.clip(seconds / per_scan, *COPIES))
    is_ct = "ct" in predictor.plan.normalise
    kinds = [kind for kind in STRENGTHS if kind != "bias" or not is_ct]  # HU have no bias field
    for number in range(copies):
        kind = kinds[number % len(kinds)]
        change = Change(kind, rng.uniform(*STRENGTHS[kind]), number)
        try:
            yield judge_scan(predictor, cases[order[number % len(order)]], change)
        except DataError as error:  # as of noise that makes intensities overflow
            log.debug("quality: %s", error)


def learn_quality(scans: Sequence[JudgedScan]) -> QualityModel | None:
    """Return a model of the quality of masks; None where there are too few cases.

    Its error and its rank correlation are those on cases that were left out, one at a time.
    """
    from scipy.optimize import isotonic_regression
    from scipy.stats import spearmanr

    clean_scans = [scan for scan in scans if not scan.change.strength]
    if len(clean_scans) < FEWEST_CASES:
        return None
    usual = usual_of([scan.measured for scan in clean_scans])
    table = _table(scans, usual)
    dice = np.array([scan.dice for scan in scans])
    cases = np.array([scan.case for scan in scans])
    costs = np.zeros(len(scans))
    for case in np.unique(cases):
        left_out = cases == case
        costs[left_out] = table[left_out] @ _weights(table[~left_out], dice[~left_out])
    order = np.argsort(costs)
    found: Any = isotonic_regression(dice[order], increasing=False)
    knots = _knots(costs[order], found)
    sums, values = np.array(knots).T
    weights = _weights(table, dice)
    typical = np.median(_table(clean_scans, usual), axis=0)
    ranked: Any = spearmanr(-costs, dice)
    return QualityModel(
        usual=usual,
        weights=dict(zip(FEATURES, weights.tolist(), strict=True)),
        typical=dict(zip(FEATURES, typical.tolist(), strict=True)),
        knots=knots,
        error=float(np.abs(np.interp(costs, sums, values) - dice).mean()),
        rank=float(np.nan_to_num(ranked.statistic)),
        cases=len(clean_scans),
        scans=len(scans),
    )


def _table(
    scans: Sequence[JudgedScan], usual: dict[str, Usual]
) -> Float[np.ndarray, "scans features"]:
    rows: list[list[float]] = []
    for scan in scans:
        features = features_of(scan.measured, usual)
        rows.append([features[name].value for name in FEATURES])
    return np.array(rows)


def _weights(
    table: Float[np.ndarray, "scans features"], dice: Float[np.ndarray, " scans"]
) -> Float[np.ndarray, " features"]:
    """Return the Dice that each feature costs, none below 0, by ridge regression.

    Weights are drawn to a small cost rather than to 0: what is unusual in a way that no scan has
    shown is suspect.
    """
    from scipy.optimize import nnls

    deviation = table.std(axis=0)
    scale = np.maximum(deviation, 1e-3)
    standard = (table - table.mean(axis=0)) / scale
    penalty = np.sqrt(PENALTY) * np.eye(table.shape[1])
    lost = np.concatenate([dice.mean() - dice, penalty @ (PRIOR * scale)])
    weights, _ = nnls(np.concatenate([standard, penalty]), lost)
    return weights / scale


def _knots(costs: Float[np.ndarray, " scans"], found: Any) -> list[tuple[float, float]]:
    """Return the mean cost and the Dice of each block of an isotonic regression."""
    edges = found.blocks
    knots: list[tuple[float, float]] = []
    for begin, end in pairwise(edges):
        knots.append((float(costs[begin:end].mean()), float(np.clip(found.x[begin], 0, 1))))
    return knots
