"""Objects of two masks, such as lesions or nuclei, matched one to one by their overlap.

An object is a connected component whose voxels touch by a face, an edge or a corner. A predicted
and a true object match where their IoU is at least a threshold; of several ways to match, the one
with the largest sum of IoU is taken (Kuhn 1955), as in panoptic quality (Kirillov 2019).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True)
class Matches:
    """Matched objects of a predicted and a true mask.

    Attributes:
        predicted: number of predicted objects.
        true: number of true objects.
        iou: the IoU of each matched pair.
    """

    predicted: int
    true: int
    iou: Float[np.ndarray, " pairs"]

    @property
    def dice(self) -> Float[np.ndarray, " pairs"]:
        """Return the Dice of each matched pair."""
        return 2 * self.iou / (1 + self.iou)


def match_objects(
    prediction: Bool[np.ndarray, "*spatial"], truth: Bool[np.ndarray, "*spatial"], least_iou: float
) -> Matches:
    """Return the matched objects of two masks of the same shape, either of which may be empty.

    Args:
        prediction: the predicted mask.
        truth: the true mask.
        least_iou: the least IoU of a pair that matches, above 0.
    """
    parts, predicted = _components(prediction)
    true_parts, true = _components(truth)
    both = (parts > 0) & (true_parts > 0)
    pairs, common = np.unique(
        np.stack([parts[both], true_parts[both]]).astype(np.int64), axis=1, return_counts=True
    )
    sizes = np.bincount(parts.ravel(), minlength=predicted + 1)[pairs[0]]
    true_sizes = np.bincount(true_parts.ravel(), minlength=true + 1)[pairs[1]]
    iou = common / (sizes + true_sizes - common)
    enough = iou >= least_iou
    return Matches(predicted, true, _best_pairs(pairs[:, enough], iou[enough]))


def _components(mask: Bool[np.ndarray, "*spatial"]) -> tuple[np.ndarray, int]:
    from scipy.ndimage import label

    found: Any = label(mask, np.ones((3,) * mask.ndim))
    return found


def _best_pairs(
    pairs: Integer[np.ndarray, "2 candidates"], iou: Float[np.ndarray, " candidates"]
) -> Float[np.ndarray, " pairs"]:
    """Return the IoU of the pairs of the best matching.

    It is solved for each group of objects that overlap one another: a table of all objects of a
    noisy mask would not fit into memory.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not iou.size:
        return iou
    first = np.unique(pairs[0], return_inverse=True)[1]
    second = np.unique(pairs[1], return_inverse=True)[1] + first.max() + 1
    number = int(second.max()) + 1
    graph = coo_array((iou, (first, second)), shape=(number, number))
    groups = connected_components(graph, directed=False)[1][first]
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    matched = [_match_group(pairs[:, group], iou[group]) for group in np.split(order, ends)]
    return np.concatenate(matched)


def _match_group(
    pairs: Integer[np.ndarray, "2 candidates"], iou: Float[np.ndarray, " candidates"]
) -> Float[np.ndarray, " pairs"]:
    from scipy.optimize import linear_sum_assignment

    if len(iou) == 1:
        return iou
    rows = np.unique(pairs[0], return_inverse=True)[1]
    columns = np.unique(pairs[1], return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    table[rows, columns] = iou
    chosen = table[linear_sum_assignment(table, maximize=True)]
    return chosen[chosen > 0]
