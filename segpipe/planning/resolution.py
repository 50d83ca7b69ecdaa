"""Spacing of model space, and the axis along which 2D networks see slices."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.plan import ANISOTROPIC
from segpipe.planning.decision import GIVEN, Decision, by_times
from segpipe.planning.fingerprint import Fingerprint

Axis = Literal[0, 1, 2]
Spacing = list[float | None]
AXES: tuple[Axis, Axis, Axis] = (0, 1, 2)
AXIAL: Axis = 2


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


def decide_slice_axis(
    options: Train, spacing: Float[np.ndarray, "3"], fingerprint: Fingerprint
) -> Decision[Axis | None]:
    """Return the axis across which volumes are cut into slices; None for 3D networks.

    Args:
        options: the run's options.
        spacing: the spacing that suits the cases, in mm.
        fingerprint: of the training cases.

    Raises:
        ConfigError: if an axis is given for a 3D network.
    """
    given = options.data.slice_axis
    if options.model.dims == 3:
        if given is not None:
            raise ConfigError(
                "data.slice_axis is for 2D networks, but model.dims is 3: take it away or use "
                "model=unet2d"
            )
        return Decision(None, "", "")
    if given is not None:
        return Decision(given, f"slices across axis {given}", GIVEN)
    is_flat = (fingerprint.shapes == 1).all(axis=0)
    if is_flat.any():
        axis = AXES[int(np.flatnonzero(is_flat)[-1])]
        return Decision(axis, f"slices across axis {axis}", "the cases are 2D")
    last_first = np.round(spacing, 3)[::-1]  # of equal spacings the last axis wins: axial slices
    axis = AXES[AXIAL - int(np.argmax(last_first))]
    why = f"the largest spacing, {spacing[axis]:.3g} mm"
    return Decision(axis, f"slices across axis {axis}", why)


def decide_spacing(
    options: Train, derived: Float[np.ndarray, "3"], why: str, slice_axis: Axis | None
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
    return Decision(spacing, f"spacing {by_times(spacing)} mm", GIVEN if given else why)
