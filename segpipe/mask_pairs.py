"""Two label arrays of one case, compared target by target: voxel counts and pairs of masks.

A target is a label, or a region that unites several. Voxels that the truth leaves open (`IGNORED`)
are background in both arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from segpipe.objects import Matches, match_objects

IGNORED = 255  # id in a truth of voxels that nobody has annotated
Targets = Mapping[str, Sequence[int]]  # name of a target -> the ids that it unites
Box = tuple[slice, ...]


@dataclass(frozen=True)
class MaskPair:
    """The predicted and the true mask of one target, cropped to the box that holds both.

    Attributes:
        prediction: the predicted mask, 2D or 3D.
        truth: the true mask, of the same shape.
        spacing_mm: voxel size along each axis of the masks, mm.
        tolerance_mm: distance up to which two surfaces count as equal, mm.
        diagonal_mm: diagonal of the whole image, mm.
        object_iou: least IoU of objects that match.
    """

    prediction: Bool[np.ndarray, "*spatial"]
    truth: Bool[np.ndarray, "*spatial"]
    spacing_mm: Float[np.ndarray, " axes"]
    tolerance_mm: float
    diagonal_mm: float
    object_iou: float

    @cached_property
    def predicted_voxels(self) -> int:
        """Return the number of voxels of the predicted mask."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def true_voxels(self) -> int:
        """Return the number of voxels of the true mask."""
        return int(np.count_nonzero(self.truth))

    @cached_property
    def common_voxels(self) -> int:
        """Return the number of voxels that belong to both masks."""
        return int(np.count_nonzero(self.prediction & self.truth))

    @cached_property
    def objects(self) -> Matches:
        """Return the objects of both masks, matched by their overlap."""
        return match_objects(self.prediction, self.truth, self.object_iou)

    @cached_property
    def one_hot(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return prediction and truth as `(1, 2, *spatial)`: background and foreground.

        Each is padded by one voxel, so that the mask has a surface at the edge of its box.
        """
        return _one_hot(self.prediction), _one_hot(self.truth)


def _one_hot(mask: Bool[np.ndarray, "*spatial"]) -> torch.Tensor:
    padded = np.pad(mask, 1)
    return torch.from_numpy(np.stack([~padded, padded])[None]).float()


def without_ignored(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both arrays with background where the truth is `IGNORED`.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"the prediction is {prediction.shape} and the truth {truth.shape}; they must be alike"
        )
    ignored = truth == IGNORED
    if not ignored.any():
        return prediction, truth
    return np.where(ignored, 0, prediction), np.where(ignored, 0, truth)


def check_ids(ids: np.ndarray, name: str, targets: Targets) -> None:
    """Check that an array holds background and ids of the targets only.

    Args:
        ids: any shape.
        name: what the array is, for the error.
        targets: the ids that may occur, besides those below the highest of them.

    Raises:
        ValueError: if an id is negative, or above the highest id of the targets.
    """
    highest = max(max(united) for united in targets.values())
    if ids.size and not 0 <= ids.min() <= ids.max() <= highest:
        raise ValueError(f"ids must lie in 0..{highest}; the {name} has {ids.min()}..{ids.max()}")


def confusion_table(
    prediction: np.ndarray, truth: np.ndarray, targets: Targets
) -> Float[np.ndarray, "truth prediction"]:
    """Return the number of voxels for each pair of a true and a predicted id.

    Voxels that are background in both arrays are not counted.

    Raises:
        ValueError: if the shapes differ, or an id is not one of the targets'.
    """
    prediction, truth = without_ignored(prediction, truth)
    # indexing keeps only the foreground: the table's index takes 8 bytes a voxel
    foreground = (prediction != 0) | (truth != 0)
    predicted_ids = prediction[foreground].astype(np.int64)
    true_ids = truth[foreground].astype(np.int64)
    # an id that is too high would be counted as another pair
    check_ids(predicted_ids, "prediction", targets)
    check_ids(true_ids, "truth", targets)
    size = 1 + max(max(united) for united in targets.values())
    counts = np.bincount(true_ids * size + predicted_ids, minlength=size**2)
    return counts.reshape(size, size).astype(float)


def mask_pairs(
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"],
    spacing_mm: Sequence[float] | np.ndarray,
    targets: Targets,
    tolerances_mm: Sequence[float],
    object_iou: float,
) -> Iterator[MaskPair]:
    """Yield the pair of masks of each target, in the order of the targets.

    The masks of an array with one slice are 2D: in 3D, all of a slice would be surface.

    Args:
        prediction: ids, 0 and those of the targets.
        truth: ids, the same as in `prediction`.
        spacing_mm: voxel size along the three axes, mm.
        targets: name of each target -> the ids that it unites.
        tolerances_mm: for each target the distance up to which two surfaces count as equal, mm.
        object_iou: least IoU of objects that match.

    Raises:
        ValueError: if the shapes differ, or an id is not one of the targets'.
    """
    from scipy.ndimage import find_objects  # takes long to import, and only scoring needs it

    prediction, truth = without_ignored(prediction, truth)
    check_ids(prediction, "prediction", targets)
    check_ids(truth, "truth", targets)
    flat = [axis for axis, size in enumerate(truth.shape) if size == 1][-1:]
    prediction = prediction.squeeze(tuple(flat))
    truth = truth.squeeze(tuple(flat))
    spacing = np.delete(np.asarray(spacing_mm, dtype=float), flat)
    diagonal_mm = float(np.linalg.norm(truth.shape * spacing))
    boxes = [find_objects(prediction), find_objects(truth)]
    for ids, tolerance_mm in zip(targets.values(), tolerances_mm, strict=True):
        box = box_of(ids, boxes, truth.ndim)
        predicted_mask = np.isin(prediction[box], ids)
        true_mask = np.isin(truth[box], ids)
        yield MaskPair(predicted_mask, true_mask, spacing, tolerance_mm, diagonal_mm, object_iou)


def box_of(ids: Sequence[int], arrays: Sequence[Sequence[Box | None]], axes: int) -> Box:
    """Return the smallest box that holds these ids in all arrays; an empty one if none has them.

    Args:
        ids: the ids of one target.
        arrays: for each array the box of each id, beginning with id 1; None for an absent id.
        axes: the axes of the arrays.
    """
    found: list[Box] = []
    for boxes in arrays:
        for label in ids:
            box = boxes[label - 1] if label <= len(boxes) else None
            if box is not None:
                found.append(box)
    if not found:
        return (slice(0, 0),) * axes
    edges: list[slice] = []
    for sides in zip(*found, strict=True):
        start = min(side.start for side in sides)
        stop = max(side.stop for side in sides)
        edges.append(slice(start, stop))
    return tuple(edges)
