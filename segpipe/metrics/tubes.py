"""Metrics of tubes, such as vessels and airways, which must not be torn."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from segpipe.mask_pairs import MaskPair
from segpipe.metric_record import metric
from segpipe.registry import METRICS


@METRICS.register("cldice", help="overlap of the centre lines of tubes (clDice, Shit 2021)")
@metric(title="clDice", usual=False, tested=True)
def cldice(pair: MaskPair) -> float:
    """Return the harmonic mean of two shares: of each centre line, that inside the other mask."""
    line = centre_line(pair.prediction)
    true_line = centre_line(pair.truth)
    precision = np.count_nonzero(line & pair.truth) / np.count_nonzero(line)
    sensitivity = np.count_nonzero(true_line & pair.prediction) / np.count_nonzero(true_line)
    if precision + sensitivity == 0:
        return 0.0
    return 2 * precision * sensitivity / (precision + sensitivity)


def centre_line(mask: Bool[np.ndarray, "*spatial"]) -> Bool[np.ndarray, "*spatial"]:
    """Return the morphological skeleton of a mask, which is that of the loss term `cldice`.

    It holds what an opening takes away, of the mask and of each of its erosions (Lantuejoul 1980),
    so it reaches every part of the mask, but may have gaps of a voxel.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    block = np.ones((3,) * mask.ndim)
    line = np.zeros_like(mask)
    while mask.any():
        eroded: Any = binary_erosion(mask)
        opened: Any = binary_dilation(eroded, block)
        line |= mask & ~opened
        mask = eroded
    return line
