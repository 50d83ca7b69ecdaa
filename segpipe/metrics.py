"""Dice, IoU, HD95, mean surface distance and NSD of two label arrays, in mm; one policy for empty masks.

What is scored is a target: a label, or a region that unites several. A target that neither mask holds is not counted
(NaN). One that only one of them holds is a miss or a false alarm: its Dice, IoU and NSD are 0 and its distances are the
diagonal of the field of view, so that a network which finds nothing never looks better than one that finds something.
(MONAI's HD95 of a miss is NaN, which its means leave out.) Means are over the cases in which either mask has the
target, and then over the targets. Voxels that the truth leaves open (`IGNORED`) are background in both.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer

from segpipe.files import write_rows

IGNORED = 255  # in a truth: nobody has looked here, so it is not scored
Targets = Mapping[str, Sequence[int]]  # what is scored: name -> the ids that it unites


@dataclass(frozen=True)
class Score:
    """How well one target of one case was found.

    Attributes:
        case: the case's name.
        label: the target's name.
        dice: 2 |A n B| / (|A| + |B|) (Dice 1945).
        iou: |A n B| / |A u B| (Jaccard 1912).
        hd95_mm: the larger of the two directed 95th percentiles of surface distances (Huttenlocher 1993).
        assd_mm: mean surface distance, both ways.
        nsd: share of both surfaces within the tolerance, 1 mm unless asked otherwise, of the other (Nikolov 2018).
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
    """One target over all cases; means leave out cases that neither mask has it in.

    Attributes:
        label: the target's name, or `mean`: the mean of the targets' lines, misses and false alarms summed.
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


def dice_per_target(
    prediction: Integer[np.ndarray, "*space"],
    truth: Integer[np.ndarray, "*space"],
    targets: Targets,
) -> Float[np.ndarray, " targets"]:
    """Dice of each target in one pass; NaN where neither mask has it.

    Raises:
        ValueError: if the shapes differ or an id is neither 0 nor of a target.
    """
    return _dice(_count(*_annotated(prediction, truth), targets), targets)


def mean_dice(cases: Float[np.ndarray, "cases targets"]) -> Float[np.ndarray, " targets"]:
    """Per target the mean over the cases that have it; NaN where none does.

    The mean Dice of a data set, here and everywhere, is the mean of these over the targets: one counts as much as
    another even if fewer cases have it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a target that no case has is NaN, as promised
        return np.nanmean(cases, axis=0)


def score_case(
    case: str,
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"],
    spacing_mm: Sequence[float] | np.ndarray,
    targets: Targets,
    nsd_tolerance_mm: float = 1.0,
) -> list[Score]:
    """All scores of a case, one per target.

    Args:
        case: the case's name.
        prediction: ids, 0 and those of the targets.
        truth: likewise; a 2D image has one slice, and its distances are those within it.
        spacing_mm: voxel size along the three axes.
        targets: what is scored: name -> the ids that it unites.
        nsd_tolerance_mm: surfaces this close count as one.

    Raises:
        ValueError: if the shapes differ or an id is neither 0 nor of a target.
    """
    prediction, truth = _annotated(prediction, truth)
    table = _count(prediction, truth, targets)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    flat = [axis for axis, size in enumerate(truth.shape) if size == 1][
        -1:
    ]  # else all of a slice is surface to MONAI
    mm = np.delete(np.asarray(spacing_mm, dtype=float), flat)
    pair = prediction.squeeze(tuple(flat)), truth.squeeze(tuple(flat))
    distances = _distances(*pair, mm, targets, nsd_tolerance_mm)
    scores = []
    for (name, ids), dice, apart in zip(
        targets.items(), _dice(table, targets), distances, strict=True
    ):
        found_ml, real_ml = (float(table.take(ids, axis).sum()) * voxel_ml for axis in (1, 0))
        scores.append(
            Score(case, name, float(dice), float(dice / (2 - dice)), *apart, found_ml, real_ml)
        )
    return scores


def _annotated(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as background where nobody has looked."""
    unknown = truth == IGNORED
    if not unknown.any() or prediction.shape != truth.shape:
        return prediction, truth
    return np.where(unknown, 0, prediction), np.where(unknown, 0, truth)


def _count(
    prediction: np.ndarray, truth: np.ndarray, targets: Targets
) -> Float[np.ndarray, "truth prediction"]:
    """Voxels per pair of ids; those that are background in both are not counted."""
    if prediction.shape != truth.shape:
        raise ValueError(
            f"the prediction is {prediction.shape} and the truth {truth.shape}; they must be alike"
        )
    labels = 1 + max(max(ids) for ids in targets.values())
    somewhere = (prediction != 0) | (
        truth != 0
    )  # elsewhere would only cost memory: 8 bytes a voxel
    found, real = (ids[somewhere].astype(np.int64) for ids in (prediction, truth))
    for mask, ids in (("prediction", found), ("truth", real)):
        if (
            ids.size and not 0 <= ids.min() <= ids.max() < labels
        ):  # else it would be counted as another pair
            raise ValueError(
                f"ids must lie in 0..{labels - 1}; the {mask} has {ids.min()}..{ids.max()}"
            )
    return (
        np.bincount(real * labels + found, minlength=labels**2)
        .reshape(labels, labels)
        .astype(float)
    )


def _dice(
    table: Float[np.ndarray, "truth prediction"], targets: Targets
) -> Float[np.ndarray, " targets"]:
    both = np.array([table[np.ix_(ids, ids)].sum() for ids in targets.values()])
    sizes = np.array(
        [table[list(ids)].sum() + table[:, list(ids)].sum() for ids in targets.values()]
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: nothing to find, nothing found
        return 2 * both / sizes


def _distances(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: np.ndarray,
    targets: Targets,
    tolerance_mm: float,
) -> Iterator[tuple[float, float, float]]:
    """HD95 and mean surface distance in mm, and NSD, of each target in 2D or 3D."""
    from scipy.ndimage import (
        find_objects,  # takes long to import, and only what has a truth is scored
    )

    diagonal = float(np.linalg.norm(truth.shape * spacing_mm))
    found, real = find_objects(prediction), find_objects(truth)
    for ids in targets.values():
        boxes = [
            [at[number - 1] for number in ids if number <= len(at) and at[number - 1]]
            for at in (found, real)
        ]
        if not any(boxes):
            yield np.nan, np.nan, np.nan
        elif not all(boxes):
            yield diagonal, diagonal, 0.0
        else:
            edges = zip(*[box for of_one in boxes for box in of_one], strict=True)
            both = tuple(
                slice(min(one.start for one in axis), max(one.stop for one in axis))
                for axis in edges
            )
            yield _surfaces_apart(
                np.isin(prediction[both], ids), np.isin(truth[both], ids), spacing_mm, tolerance_mm
            )


def _surfaces_apart(
    found: np.ndarray, real: np.ndarray, spacing_mm: np.ndarray, tolerance_mm: float
) -> tuple[float, float, float]:
    """HD95, mean surface distance and NSD of two masks, neither of which is empty."""
    # MONAI takes longer to import than a small scan to segment, and only what has a truth is scored
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    first, second, mm = _one_hot(found), _one_hot(real), spacing_mm.tolist()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*always_return_as_numpy", FutureWarning
        )  # MONAI calls itself so
        hd95 = compute_hausdorff_distance(first, second, percentile=95, spacing=mm)
        assd = compute_average_surface_distance(first, second, symmetric=True, spacing=mm)
        nsd = compute_surface_dice(first, second, [tolerance_mm], spacing=mm, use_subvoxels=True)
    return float(hd95), float(assd), float(nsd)


def _one_hot(mask: np.ndarray) -> torch.Tensor:
    """Background and foreground as MONAI wants them, `(1, 2, *space)`, with a rim so that its edge is a surface."""
    padded = np.pad(mask, 1)
    return torch.from_numpy(np.stack([~padded, padded])[None]).float()


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """A line per target, and the mean of those lines; one that no case has is NaN and not in the mean."""
    lines = []
    for label in dict.fromkeys(score.label for score in scores):
        own = [score for score in scores if score.label == label]
        values = np.array([[score.dice, score.hd95_mm, score.nsd] for score in own])
        dice, hd95, nsd = (float(value) for value in mean_dice(values))
        misses = sum(score.volume_ml == 0 < score.truth_ml for score in own)
        alarms = sum(score.truth_ml == 0 < score.volume_ml for score in own)
        lines.append(Summary(label, dice, hd95, nsd, misses, alarms))
    dice, hd95, nsd = (
        float(value)
        for value in mean_dice(np.array([[line.dice, line.hd95_mm, line.nsd] for line in lines]))
    )
    misses, alarms = sum(line.misses for line in lines), sum(line.false_alarms for line in lines)
    return [*lines, Summary("mean", dice, hd95, nsd, misses, alarms)]


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Writes a CSV with a line per case and target."""
    write_rows(path, scores, Score)
