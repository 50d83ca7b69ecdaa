"""The resolution of model space against how much of a scan a patch sees.

Organs are found by where they lie in a body, so a patch must see the body. Labels that are fine, as
vessels, or in many parts, as cells, are recognised by their looks: they keep their resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from segpipe.data.ceiling import FACTORS
from segpipe.planning.fingerprint import Fingerprint

# chosen on benchmarks/datasets.py: labels of organs lie in up to two parts, cells in dozens
MOST_PARTS = 3
STEPS_PER_DOUBLING = 4  # factors that are tried
ENOUGH = 0.3  # of a scan that a patch sees
COMFORTABLE = 0.95  # ceiling down to which a coarser spacing is taken for the sake of speed


@dataclass(frozen=True)
class View:
    """How coarse model space is, and what that shows.

    Attributes:
        spacing_mm: along all three axes.
        factor: times the finest spacing of the cases.
        share: of a median case that the largest patch holds, in voxels; 1 at most.
        ceiling: Dice that a perfect network would have, mean of the labels.
    """

    spacing_mm: Float[np.ndarray, "3"]
    factor: float
    share: float
    ceiling: float

    @property
    def why(self) -> str:
        """Return what the factor shows and what it costs."""
        shown = "whole scans" if self.share == 1 else f"{100 * self.share:.2g} % of a scan"
        return (
            f"{self.factor:.2g} times the finest of the cases, so that a patch sees {shown}; a "
            f"perfect network would score about {self.ceiling:.3f} there (plan.ceiling=1 keeps the "
            "median)"
        )


def widen(
    spacing_mm: Float[np.ndarray, "3"],
    cases: Fingerprint,
    axes: Sequence[int],
    voxels: tuple[float, float],
    lowest: float,
) -> View | None:
    """Return the finest view in which a patch holds a whole median case, as far as labels allow.

    Args:
        spacing_mm: that suits the cases without regard to the patch.
        cases: their fingerprint, along the axes of model space.
        axes: that the network sees.
        voxels: of a usual patch, and of the largest.
        lowest: ceiling that coarser spacings must keep.

    Returns:
        None where the spacing is to stay: a patch holds enough of a case already, or would not at
        any spacing; the labels are too fine, in many parts, or not measured.
    """
    parts = [size.parts for size in cases.labels.values()]
    if not cases.ceilings or np.median(parts) > MOST_PARTS:
        return None
    finest = float(spacing_mm[list(axes)].min())
    usual, largest = voxels
    best = None
    for step in range(STEPS_PER_DOUBLING * round(np.log2(FACTORS[-1])) + 1):
        factor = 2 ** (step / STEPS_PER_DOUBLING)
        ceiling = float(np.interp(factor, (1, *FACTORS), (1.0, *cases.ceilings)))
        is_whole = best is not None and best.share == 1
        if ceiling < (COMFORTABLE if is_whole else lowest):
            break
        coarse = np.maximum(spacing_mm, factor * finest)
        shape = np.array(median_shape(cases, coarse))
        needed = float(shape[list(axes)].prod())
        if factor == 1 and usual >= ENOUGH * needed:
            return None
        best = View(coarse, factor, min(1.0, largest / needed), ceiling)
        if usual >= needed:
            break
    return best if best is not None and best.factor > 1 and best.share >= ENOUGH else None


def median_shape(cases: Fingerprint, spacing_mm: Sequence[float | None] | np.ndarray) -> list[int]:
    """Return the median size, in voxels of model space, of what is not 0 in the cases.

    Args:
        cases: their fingerprint, along the axes of model space.
        spacing_mm: of model space; None along an axis keeps each case's own.
    """
    target = np.array(spacing_mm, dtype=float)  # None becomes NaN
    scale = np.where(np.isnan(target), 1.0, cases.spacings_mm / target)
    median = np.median(np.round(cases.boxes * scale), axis=0)
    return np.maximum(1, median.astype(int)).tolist()
