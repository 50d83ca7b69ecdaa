"""What a validation case says about post-processing, small enough to keep for all cases.

Of each label the case keeps the components of its mask, each with the true labels that it lies on,
and histograms of the probability. From these, Dice after a removal or under another threshold is
computed without a mask.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from segpipe.config.scoring import USUAL
from segpipe.mask_pairs import IGNORED, confusion_table, mask_pairs
from segpipe.metrics import Score, tolerances_mm
from segpipe.plan import Plan
from segpipe.prediction.postprocessing import NEIGHBOURS, clean
from segpipe.prediction.predictor import Prediction
from segpipe.registry import METRICS
from segpipe.training.calibration import Voxels, voxels_of

BINS = 100  # of a probability: thresholds are told apart in steps of 0.01
LOWEST = 0.2  # no threshold below it is tried


@dataclass(frozen=True)
class Components:
    """The components of one label in one mask.

    Attributes:
        volumes_ml: the volumes of each, mL.
        truth: voxels of each that lie on each true label, those that nobody has annotated left out.
    """

    volumes_ml: Float[np.ndarray, " parts"]
    truth: Integer[np.ndarray, "parts labels"]


@dataclass(frozen=True)
class Evidence:
    """One validation case.

    Attributes:
        case: its name.
        table: voxels per true and predicted label.
        voxel_ml: volume of a voxel, mL.
        components: the components of each label of the mask.
        hd95_mm: the HD95 of each target, mm.
        hd95_largest_mm: label -> that of its largest component alone, mm; only where labels exclude
            one another and there is more than one component.
        histograms: channel -> voxels by probability, outside and inside the truth; empty where no
            probabilities were kept.
        true_voxels: channel -> voxels of the truth.
        voxels: some that are in question, with their probabilities; None where none were kept.
    """

    case: str
    table: Float[np.ndarray, "labels labels"]
    voxel_ml: float
    components: dict[int, Components]
    hd95_mm: dict[str, float]
    hd95_largest_mm: dict[int, float]
    histograms: dict[str, Integer[np.ndarray, "2 bins"]]
    true_voxels: dict[str, int]
    voxels: Voxels | None


def gather(
    case: str,
    prediction: Prediction,
    truth: Integer[np.ndarray, "x y z"],
    scores: list[Score],
    plan: Plan,
) -> Evidence:
    """Return what a case says, from its prediction and its truth on the same grid."""
    labels = prediction.labels
    voxel_ml = prediction.grid.voxel_ml
    components: dict[int, Components] = {}
    for label in range(1, len(plan.labels)):
        found = _components(labels, truth, label, len(plan.labels), voxel_ml)
        if len(found.volumes_ml):
            components[label] = found
    largest = {}
    if plan.regions is None and all("hd95_mm" in score.values for score in scores):
        largest = _hd95_of_largest(prediction, truth, components, plan)
    histograms, true_voxels = _histograms(prediction, truth, plan)
    sample = prediction.maps.sample
    return Evidence(
        case,
        confusion_table(labels, truth, plan.targets),
        voxel_ml,
        components,
        {score.label: float(score.hd95_mm) for score in scores},
        largest,
        histograms,
        true_voxels,
        None if sample is None else voxels_of(sample, truth, plan),
    )


def _components(
    labels: np.ndarray, truth: np.ndarray, label: int, number: int, voxel_ml: float
) -> Components:
    from scipy.ndimage import find_objects
    from scipy.ndimage import label as label_components

    none = Components(np.zeros(0), np.zeros((0, number), int))
    if label > labels.max():
        return none
    mask = labels == label
    box = find_objects(mask.astype(np.uint8))
    if not box or box[0] is None:
        return none
    found: Any = label_components(mask[box[0]], NEIGHBOURS)
    parts, count = found
    inside = parts > 0
    part = parts[inside].astype(np.int64) - 1
    on = truth[box[0]][inside].astype(np.int64)
    volumes = np.bincount(part, minlength=count) * voxel_ml
    known = on != IGNORED
    pairs = np.bincount(part[known] * number + on[known], minlength=count * number)
    return Components(volumes, pairs.reshape(count, number))


def _hd95_of_largest(
    prediction: Prediction, truth: np.ndarray, components: dict[int, Components], plan: Plan
) -> dict[int, float]:
    """Return the HD95 of each label that has several components, with the largest alone, mm."""
    several = [label for label, found in components.items() if len(found.volumes_ml) > 1]
    if not several:
        return {}
    cleaned = clean(prediction.labels, prediction.grid.voxel_ml, keep_largest=several)
    spacing_mm = prediction.grid.spacing_mm
    names = list(plan.labels)
    targets = {names[label]: [label] for label in several}
    top = {names[-1]: [len(names) - 1]}  # so that every label is one of the targets'
    values = {}
    both = targets | top
    tolerances = tolerances_mm(USUAL, both)
    pairs = mask_pairs(cleaned, truth, spacing_mm, both, tolerances, USUAL.object_iou)
    for name, pair in zip(both, pairs, strict=True):
        if name in targets:
            values[targets[name][0]] = METRICS["hd95_mm"](pair)
    return values


def _histograms(
    prediction: Prediction, truth: np.ndarray, plan: Plan
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return per label or region its histograms and the voxels of its truth."""
    probabilities = prediction.maps.probabilities
    if probabilities is None:
        return {}, {}
    best, second = (None, None) if plan.regions else _two_highest(probabilities)
    histograms = {}
    true_voxels = {}
    for channel, (name, ids) in enumerate(plan.targets.items(), start=0 if plan.regions else 1):
        own = probabilities[..., channel]
        chosen = (own > LOWEST * 255) & (truth != IGNORED)
        values = own[chosen].astype(float)
        if best is None or second is None:
            share = values / 255
        else:
            others = np.where(own == best, second, best)[chosen]
            share = values / np.maximum(values + others, 1)
        inside = np.isin(truth[chosen], ids)
        rows = []
        for side in (~inside, inside):
            steps = np.minimum((share[side] * BINS).astype(int), BINS - 1)
            rows.append(np.bincount(steps, minlength=BINS))
        histograms[name] = np.stack(rows)
        true_voxels[name] = int(np.isin(truth, ids).sum())
    return histograms, true_voxels


def _two_highest(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest and the second highest value of each voxel, channel by channel."""
    best = probabilities[..., 0].copy()
    second = np.zeros_like(best)
    for channel in range(1, probabilities.shape[-1]):
        values = probabilities[..., channel]
        second = np.maximum(second, np.minimum(best, values))
        best = np.maximum(best, values)
    return best, second
