"""Learn a temperature on validation cases, and measure how often probabilities are right.

Only voxels that are in question count: those to which the network gives a foreground of 1 % or
more. Among all voxels, those of the background, of which any network is sure, would hide the
others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from segpipe.calibration import tempered
from segpipe.mask_pairs import IGNORED
from segpipe.plan import Plan
from segpipe.prediction.maps import Sample

IN_QUESTION = 0.01  # probability of the foreground
MOST_VOXELS = 20_000  # of a case
BINS = 15  # of the confidence, as in Guo 2017
LEAST_GAIN = 0.005  # of the ECE, from which a temperature is taken
RANGE = (0.1, 10.0)  # of temperatures that are tried


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a case that are in question.

    Attributes:
        probabilities: the probabilities of each class.
        truth: whether each class is the true one, or holds the voxel.
    """

    probabilities: Float[np.ndarray, "voxels classes"]
    truth: Bool[np.ndarray, "voxels classes"]


@dataclass(frozen=True)
class Reliability:
    """How often predictions of a confidence are right.

    Attributes:
        confidence: mean of each bin that holds voxels.
        right: share of its voxels that are predicted rightly.
        share: the share of all voxels that it holds.
        ece: expected calibration error, the mean of |right - confidence| over the voxels.
    """

    confidence: list[float]
    right: list[float]
    share: list[float]
    ece: float


@dataclass(frozen=True)
class Calibration:
    """What was learnt of probabilities.

    Attributes:
        temperature: the temperature that is stored; 1 where it does not help.
        before: the reliability of the probabilities as the network has them.
        after: their reliability under temperatures that were learnt on the other half of the cases.
        voxels: number of voxels that were looked at.
        cases: number of cases that hold them.
    """

    temperature: float
    before: Reliability
    after: Reliability
    voxels: int
    cases: int


def voxels_of(sample: Sample, truth: Integer[np.ndarray, "x y z"], plan: Plan) -> Voxels:
    """Return the voxels of a sample that are in question and annotated."""
    probabilities = sample.probabilities
    ids = sample.values_of(truth)
    if plan.regions is None:
        foreground = 1 - probabilities[:, 0]
        is_true = ids[:, None] == np.arange(probabilities.shape[1])
    else:
        foreground = probabilities.max(axis=1)
        is_true = np.stack([np.isin(ids, inside) for inside in plan.regions.values()], axis=1)
    chosen = np.flatnonzero((foreground >= IN_QUESTION) & (ids != IGNORED))
    chosen = chosen[:: len(chosen) // MOST_VOXELS + 1]
    return Voxels(probabilities[chosen], is_true[chosen])


def calibrate(cases: Sequence[Voxels], exclusive: bool) -> Calibration | None:
    """Return what cases say of probabilities; None where no voxel is in question.

    Args:
        cases: the cases, in any order; those at odd places judge what the others have taught, and
            the reverse.
        exclusive: whether a voxel has one label.
    """
    cases = [case for case in cases if len(case.truth)]
    if len(cases) < 2:
        return None
    halves = [_joined(cases[0::2]), _joined(cases[1::2])]
    scaled: list[Voxels] = []
    for half, other in (halves, halves[::-1]):
        temperature = best_temperature(other, exclusive)
        scaled.append(Voxels(_tempered(half, temperature, exclusive), half.truth))
    whole = _joined(cases)
    before = reliability(_joined(halves), exclusive)
    after = reliability(_joined(scaled), exclusive)
    temperature = 1.0
    if after.ece <= before.ece - LEAST_GAIN:
        temperature = best_temperature(whole, exclusive)
    return Calibration(temperature, before, after, len(whole.truth), len(cases))


def best_temperature(voxels: Voxels, exclusive: bool) -> float:
    """Return the temperature with the lowest negative log-likelihood of the truth."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = _tempered(voxels, float(np.exp(log_temperature)), exclusive)
        right = np.where(voxels.truth, scaled, 1 - scaled)
        if exclusive:
            right = scaled[voxels.truth]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def reliability(voxels: Voxels, exclusive: bool) -> Reliability:
    """Return how often predictions are right, by their confidence.

    Of labels, a voxel counts once, with its most probable label; of regions, once for each.
    """
    probabilities = voxels.probabilities
    if exclusive:
        confidence = probabilities.max(axis=1)
        is_right = voxels.truth[np.arange(len(confidence)), probabilities.argmax(axis=1)]
    else:
        confidence = np.maximum(probabilities, 1 - probabilities).ravel()
        is_right = ((probabilities > 0.5) == voxels.truth).ravel()
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = counts > 0
    mean = np.bincount(bins, confidence, BINS)[filled] / counts[filled]
    right = np.bincount(bins, is_right, BINS)[filled] / counts[filled]
    share = counts[filled] / counts.sum()
    ece = float((share * np.abs(right - mean)).sum())
    return Reliability(mean.tolist(), right.tolist(), share.tolist(), ece)


def _joined(parts: Sequence[Voxels]) -> Voxels:
    probabilities = [part.probabilities for part in parts]
    truth = [part.truth for part in parts]
    return Voxels(np.concatenate(probabilities), np.concatenate(truth))


def _tempered(
    voxels: Voxels, temperature: float, exclusive: bool
) -> Float[np.ndarray, "voxels classes"]:
    classes = [torch.from_numpy(column) for column in voxels.probabilities.T.astype(np.float64)]
    return torch.stack(list(tempered(classes, temperature, exclusive)), 1).numpy()
