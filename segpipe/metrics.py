"""Dice, IoU, HD95, mean surface distance and NSD of two label arrays, in mm; one policy for empty masks.

A label that neither mask holds is not counted (NaN). A label that only one of them holds is a miss or a false alarm:
its Dice, IoU and NSD are 0 and its distances are the diagonal of the field of view, so that a network which finds
nothing never looks better than one that finds something.
"""

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.surface_distance import compute_average_surface_distance

from segpipe.files import write_text

TOLERANCE_MM = 1.0


@dataclass(frozen=True)
class Score:
    """How well one label of one case was found.

    Attributes:
        case: the case's name.
        label: the label's name.
        dice: 2 |A n B| / (|A| + |B|) (Dice 1945).
        iou: |A n B| / |A u B| (Jaccard 1912).
        hd95_mm: the larger of the two directed 95th percentiles of surface distances (Huttenlocher 1993).
        assd_mm: mean surface distance, both ways.
        nsd: share of both surfaces within 1 mm of the other (Nikolov 2018).
        volume_ml: of the prediction.
        truth_ml: of the truth.
    """

    case: str
    label: str
    dice: float
    iou: float
    hd95_mm: float
    assd_mm: float
    nsd: float
    volume_ml: float
    truth_ml: float


@dataclass(frozen=True)
class Summary:
    """One label over all cases; means leave out cases that neither mask has the label in.

    Attributes:
        label: the label's name, or `mean` of all.
        dice: mean.
        hd95_mm: mean.
        nsd: mean.
        misses: cases in which only the truth has it.
        false_alarms: cases in which only the prediction has it.
    """

    label: str
    dice: float
    hd95_mm: float
    nsd: float
    misses: int
    false_alarms: int


def dice_per_label(
    prediction: Integer[np.ndarray, "x y z"], truth: Integer[np.ndarray, "x y z"], labels: int
) -> Float[np.ndarray, " foreground"]:
    """Dice of labels 1 to `labels - 1` in one pass; NaN where neither mask has the label."""
    pairs = np.bincount(truth.ravel().astype(np.int64) * labels + prediction.ravel(), minlength=labels**2)
    table = pairs.reshape(labels, labels).astype(float)
    both = table.sum(0) + table.sum(1)
    with np.errstate(invalid="ignore"):
        return (2 * table.diagonal() / both)[1:]


def mean_dice(cases: Float[np.ndarray, "cases foreground"]) -> Float[np.ndarray, " foreground"]:
    """Per label the mean over the cases that have it; NaN where none does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a label that no case has is NaN, as promised
        return np.nanmean(cases, axis=0)


def score_case(
    case: str,
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"],
    spacing_mm: Sequence[float] | np.ndarray,
    names: Sequence[str],
) -> list[Score]:
    """All scores of a case, one per label.

    Args:
        case: the case's name.
        prediction: ids 0 .. `len(names)`.
        truth: likewise; a 2D image has one slice, and its distances are those within it.
        spacing_mm: voxel size along the three axes.
        names: of the labels 1, 2 ...
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    voxel_ml = float(spacing.prod()) / 1000
    dice = dice_per_label(prediction, truth, len(names) + 1)
    scores = []
    for number, name in enumerate(names, 1):
        found, real = prediction == number, truth == number
        overlap = float(dice[number - 1])
        hd95, assd, nsd = _distances(found, real, spacing)
        volumes = float(found.sum()) * voxel_ml, float(real.sum()) * voxel_ml
        scores.append(Score(case, name, overlap, overlap / (2 - overlap), hd95, assd, nsd, *volumes))
    return scores


def _distances(found: np.ndarray, real: np.ndarray, spacing: np.ndarray) -> tuple[float, float, float]:
    """HD95 and mean surface distance in mm, and NSD."""
    if not found.any() and not real.any():
        return np.nan, np.nan, np.nan
    if not found.any() or not real.any():
        flat = np.array(found.shape) == 1
        diagonal = float(np.linalg.norm(np.where(flat, 0, found.shape) * spacing))
        return diagonal, diagonal, 0.0
    where = np.nonzero(found | real)
    box = tuple(slice(int(along.min()), int(along.max()) + 1) for along in where)
    pair = tuple(_one_hot(mask[box], np.array(mask.shape) == 1) for mask in (found, real))
    mm = [float(edge) for edge, size in zip(spacing, found.shape, strict=True) if size > 1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)  # MONAI calls itself so
        hd95 = compute_hausdorff_distance(pair[0], pair[1], percentile=95, spacing=mm)
        assd = compute_average_surface_distance(pair[0], pair[1], symmetric=True, spacing=mm)
        nsd = compute_surface_dice(pair[0], pair[1], [TOLERANCE_MM], spacing=mm, use_subvoxels=True)
    return float(hd95), float(assd), float(nsd)


def _one_hot(mask: np.ndarray, flat: np.ndarray) -> torch.Tensor:
    """Background and foreground as MONAI wants them, `(1, 2, *space)`, with a rim so that its edge is a surface."""
    padded = np.pad(mask, [(0, 0) if along else (1, 1) for along in flat])
    return torch.from_numpy(np.stack([~padded, padded]).squeeze(tuple(np.flatnonzero(flat) + 1))[None]).float()


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """A line per label, and the mean of those lines."""
    lines = []
    for label in dict.fromkeys(score.label for score in scores):
        own = [score for score in scores if score.label == label]
        values = np.array([[score.dice, score.hd95_mm, score.nsd] for score in own])
        dice, hd95, nsd = (float(value) for value in mean_dice(values))
        misses = sum(score.volume_ml == 0 < score.truth_ml for score in own)
        alarms = sum(score.truth_ml == 0 < score.volume_ml for score in own)
        lines.append(Summary(label, dice, hd95, nsd, misses, alarms))
    dice, hd95, nsd = (
        float(value) for value in mean_dice(np.array([[line.dice, line.hd95_mm, line.nsd] for line in lines]))
    )
    misses, alarms = sum(line.misses for line in lines), sum(line.false_alarms for line in lines)
    return [*lines, Summary("mean", dice, hd95, nsd, misses, alarms)]


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Writes a CSV with a line per case and label."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Score)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(score) for score in scores)
    write_text(path, text.getvalue())
