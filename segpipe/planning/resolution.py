"""Spacing of model space."""

import numpy as np
from jaxtyping import Float

from segpipe.axes import Axis
from segpipe.config.train import Train
from segpipe.plan import ANISOTROPIC
from segpipe.planning.decision import GIVEN, Decision, by_times
from segpipe.planning.fingerprint import Fingerprint

Spacing = list[float | None]
AXES: tuple[Axis, Axis, Axis] = (0, 1, 2)


def derive_spacing(fingerprint: Fingerprint) -> tuple[Float[np.ndarray, "3"], str]:
    """Return the spacing that suits the cases, in mm, and the reason for it.

    It is the median; along a coarse axis the 10th percentile, so that fine scans are not blurred.
    """
    spacing = np.median(fingerprint.spacings_mm, axis=0)
    shape = np.median(fingerprint.shapes, axis=0)
    coarse = int(np.argmax(spacing))
    others = [axis for axis in AXES if axis != coarse]
    is_thin = bool((shape[coarse] * ANISOTROPIC < shape[others]).all())
    in_plane = float(spacing[others].max())
    if not is_thin or spacing[coarse] <= ANISOTROPIC * in_plane:
        return spacing, "median of the training cases"
    tenth = float(np.percentile(fingerprint.spacings_mm[:, coarse], 10))
    spacing[coarse] = max(tenth, in_plane)
    why = f"anisotropic, so along the coarse axis {coarse} the 10th percentile, else the median"
    return spacing, why


def decide_spacing(
    options: Train, derived: Float[np.ndarray, "3"], why: str, slice_axis: int | None
) -> Decision[Spacing]:
    """Return the spacing of model space in mm; None along an axis keeps each scan's own.

    Args:
        options: the run's options.
        derived: the spacing that suits the cases, in mm.
        why: the reason for it.
        slice_axis: the axis that the network does not see; None for 3D networks.
    """
    given = options.plan.spacing
    spacing: Spacing = [float(mm) for mm in given or derived]
    if slice_axis is not None and given is None:
        spacing[slice_axis] = None
    return Decision(spacing, spacing_entry(spacing), GIVEN if given else why)


def spacing_entry(spacing: Spacing) -> str:
    """Return a spacing as the plan shows it."""
    known = [mm for mm in spacing if mm is not None]
    own = "" if None not in spacing else f", each scan's own along axis {spacing.index(None)}"
    return f"spacing {by_times(known)} mm{own}"
