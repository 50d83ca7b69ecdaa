"""What a perfect network would score on a coarser grid: how much detail a label has."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from segpipe.resampling import resize

FACTORS = (2, 4, 8)  # times the finest spacing of a scan, at which ceilings are measured
MARGIN = 8  # voxels around a label, so that the coarse grid has a background beside it


def ceilings(
    mask: Bool[np.ndarray, "x y z"], spacing_mm: Sequence[float]
) -> Float[np.ndarray, " factors"]:
    """Return the Dice of a label with itself after a coarser grid and back, for each of `FACTORS`.

    The coarse grid has the factor times the finest spacing along all axes that are finer; axes that
    are coarser stay. A label goes there and back as it does in training and prediction: by the
    nearest voxel, then by linear interpolation.

    Args:
        mask: the label's voxels, or those of a box around them.
        spacing_mm: voxel size along its axes.
    """
    finest = min(spacing_mm)
    padded = np.pad(mask, [(MARGIN if size > 1 else 0,) * 2 for size in mask.shape])
    fine = torch.from_numpy(padded.astype(np.float32))[None]
    found = []
    for factor in FACTORS:
        shape = []
        for size, mm in zip(padded.shape, spacing_mm, strict=True):
            shape.append(max(1, round(size * min(1.0, mm / (factor * finest)))))
        coarse = resize(fine, (shape[0], shape[1], shape[2]), "nearest-exact")
        back = resize(coarse, padded.shape, "trilinear").numpy()[0] > 0.5
        found.append(2 * (back & padded).sum() / (back.sum() + padded.sum()))
    return np.array(found)
