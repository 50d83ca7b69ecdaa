"""The resolution of model space against how much of a scan a patch sees.

Organs are found by where they lie in a body, so a patch must see the body. Labels that are fine, as
vessels, or in many parts, as cells, are recognised by their looks: they keep their resolution.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from segpipe.data.ceiling import FACTORS
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.pace import Pace
from segpipe.text import rounded

# chosen on benchmarks/datasets.py: organs are up to twice as large as their largest part, whatever
# specks lie beside it, cells nine times and more
MOST_SPREAD = 3
STEPS_PER_DOUBLING = 4  # factors that are tried
ENOUGH = 0.3  # of a scan that a patch sees
COMFORTABLE = 0.95  # ceiling down to which a coarser spacing is taken for the sake of speed
# Whole scans that a network must see for each label, since a step teaches all labels at once: where
# a budget holds fewer, a coarser spacing is better (docs/recipe.md).
ENOUGH_SCANS = 30


@dataclass(frozen=True)
class View:
    """How coarse model space is, and what that shows.

    Attributes:
        spacing_mm: along all three axes.
        factor: times the finest spacing of the cases.
        shape: voxels of a median case along the axes that the network sees.
        share: the share of a median case that the largest patch holds, in voxels; 1 at most.
        ceiling: Dice that a perfect network would have, mean of the labels.
        scans: whole scans that the budget holds for each label; infinite where it is not of time.
        finer: those of the last finer view that was given up for want of them; None where none was.
    """

    spacing_mm: Float[np.ndarray, "3"]
    factor: float
    shape: list[int]
    share: float
    ceiling: float
    scans: float = math.inf
    finer: float | None = None

    @property
    def voxels(self) -> int:
        """Voxels of a median case."""
        return math.prod(self.shape)

    @property
    def why(self) -> str:
        """Return what the factor shows and what it costs."""
        shown = "whole scans" if self.share == 1 else f"{100 * self.share:.2g} % of a scan"
        hurry = ""
        if self.finer is not None:
            hurry = (
                f" and the budget holds about {rounded(self.scans, 2)} scans for each label, in "
                f"place of {rounded(self.finer, 2)} at a finer spacing ({ENOUGH_SCANS} are enough)"
            )
        return (
            f"{self.factor:.2g} times the finest of the cases, so that a patch sees {shown}"
            f"{hurry}; a perfect network would score about {self.ceiling:.3f} there "
            "(plan.ceiling=1 keeps the median)"
        )


def widen(
    spacing_mm: Float[np.ndarray, "3"],
    cases: Fingerprint,
    axes: Sequence[int],
    voxels: tuple[float, float],
    lowest: tuple[float, float],
    pace: Callable[[], Pace | None] = lambda: None,
) -> View | None:
    """Return the finest view in which a patch holds a whole median case, as far as labels allow.

    Where the budget is too short for that view, it is a coarser one.

    Args:
        spacing_mm: the spacing that suits the cases without regard to the patch, mm.
        cases: their fingerprint, along the axes of model space.
        axes: the axes that the network sees.
        voxels: the voxels of a usual patch, and of the largest.
        lowest: the ceiling that coarser spacings must keep, and that where the budget is short.
        pace: a function that estimates the pace of the training, where it is asked for.

    Returns:
        None where the spacing is to stay: a patch holds enough of a case already, or would not at
        any spacing; the labels are too fine, in many parts, or not measured.
    """
    spreads = [size.spread for size in cases.labels.values()]
    if not cases.ceilings or np.median(spreads) > MOST_SPREAD:
        return None
    usual, largest = voxels
    views = _views(spacing_mm, cases, axes, largest)
    if usual >= ENOUGH * views[0].voxels:
        return None
    best = _by_context(views, usual, lowest[0])
    if best is None or best.factor == 1 or best.share < ENOUGH:
        return None
    speed = pace()
    if speed is None:
        return best
    coarser = [view for view in views if view.factor > best.factor and view.ceiling >= lowest[1]]
    return _within_budget([best, *coarser], axes, largest, speed, len(cases.labels))


def _by_context(views: Sequence[View], usual: float, lowest: float) -> View | None:
    """Return the finest view that shows all in a usual patch, as far as the ceiling allows."""
    best = None
    for view in views:
        is_whole = best is not None and best.share == 1
        if view.ceiling < (COMFORTABLE if is_whole else lowest):
            break
        best = view
        if usual >= view.voxels:
            break
    return best


def _views(
    spacing_mm: Float[np.ndarray, "3"], cases: Fingerprint, axes: Sequence[int], largest: float
) -> list[View]:
    """Return all views, finest first; arguments as of `widen`, and voxels of the largest patch."""
    finest = float(spacing_mm[list(axes)].min())
    views = []
    for step in range(STEPS_PER_DOUBLING * round(np.log2(FACTORS[-1])) + 1):
        factor = 2 ** (step / STEPS_PER_DOUBLING)
        ceiling = float(np.interp(factor, (1, *FACTORS), (1.0, *cases.ceilings)))
        coarse = np.maximum(spacing_mm, factor * finest)
        median = median_shape(cases, coarse)
        shape = [median[axis] for axis in axes]
        share = min(1.0, largest / math.prod(shape))
        views.append(View(coarse, factor, shape, share, ceiling))
    return views


def _within_budget(
    views: Sequence[View], axes: Sequence[int], largest: float, pace: Pace, labels: int
) -> View:
    """Return the first view of which the budget holds enough scans for each label, or the last.

    Args:
        views: finest first.
        axes: the axes that the network sees.
        largest: voxels of the largest patch.
        pace: the pace of the training.
        labels: number of labels, without the background.
    """
    finer = None
    chosen = views[0]
    for view in views:
        spacing = view.spacing_mm[list(axes)].tolist()
        patches = pace.patches(view.shape, spacing, largest)
        chosen = replace(view, scans=patches * view.share / labels, finer=finer)
        if chosen.scans >= ENOUGH_SCANS:
            break
        finer = chosen.scans
    return chosen


def median_shape(cases: Fingerprint, spacing_mm: Sequence[float | None] | np.ndarray) -> list[int]:
    """Return the median size, in voxels of model space, of what is not 0 in the cases.

    Args:
        cases: their fingerprint, along the axes of model space.
        spacing_mm: the spacing of model space; None along an axis keeps each case's own.
    """
    target = np.array(spacing_mm, dtype=float)  # None becomes NaN
    scale = np.where(np.isnan(target), 1.0, cases.spacings_mm / target)
    median = np.median(np.round(cases.boxes * scale), axis=0)
    return np.maximum(1, median.astype(int)).tolist()
