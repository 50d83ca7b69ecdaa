"""What the entries of a stored plan must be for a network to see scans through it."""

import math

from segpipe.plan import Plan

LARGEST_SIDE = 2**15  # voxels
LARGEST_PATCH = 2**30  # voxels
LARGEST_SPACING = 1e4  # mm
LARGEST_BATCH = 2**16
LARGEST_ID = 2**31 - 1  # of a label on disk


def check_plan(plan: Plan) -> None:
    """Check that the entries of a plan are possible, and go together.

    Raises:
        ValueError: naming the first that is not.
    """
    _check_targets(plan)
    _check_space(plan)
    _check_levels(plan)
    _check_intensities(plan)


def _check_targets(plan: Plan) -> None:
    if not plan.channels or len(plan.labels) < 2:
        raise ValueError("channels and labels are too few to segment anything")
    ids = list(plan.labels.values())
    if len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) > LARGEST_ID:
        raise ValueError("labels are not different ids from 0 on")
    for name, indices in (plan.regions or {}).items():
        if not indices or min(indices) < 0 or max(indices) >= len(ids):
            raise ValueError(f"regions: {name[:60]!r} has labels that are not there")
    if plan.paint is not None:
        is_complete = plan.paint.keys() == (plan.regions or {}).keys()
        if not is_complete or not set(plan.paint.values()) <= set(range(1, len(ids))):
            raise ValueError("paint does not give each region a label")


def _check_space(plan: Plan) -> None:
    if len(plan.patch) != 3 or len(plan.spacing_mm) != 3:
        raise ValueError("patch and spacing_mm have not one entry for each of 3 axes")
    if min(plan.patch) < 1 or max(plan.patch) > LARGEST_SIDE:
        raise ValueError(f"patch is not 1 to {LARGEST_SIDE} voxels wide")
    if math.prod(plan.patch) > LARGEST_PATCH:
        raise ValueError(f"patch has more than {LARGEST_PATCH} voxels")
    if not 1 <= plan.batch <= LARGEST_BATCH:
        raise ValueError(f"batch is not 1 to {LARGEST_BATCH}")
    if plan.batch % plan.parts:
        raise ValueError(f"batch {plan.batch} cannot be computed in {plan.parts} parts")
    mirrored = plan.mirror_axes
    if len(set(mirrored)) < len(mirrored) or not set(mirrored) <= set(plan.network_axes):
        raise ValueError("mirror_axes are not different axes that the network sees")
    for spacing in plan.spacing_mm:
        if spacing is not None and not 0 < spacing <= LARGEST_SPACING:
            raise ValueError("spacing_mm is no positive number")


def _check_levels(plan: Plan) -> None:
    if len(plan.kernels) != len(plan.strides) + 1:
        raise ValueError(
            f"kernels has {len(plan.kernels)} levels, but strides {len(plan.strides) + 1}"
        )
    for sizes in (*plan.strides, *plan.kernels):
        if len(sizes) != plan.dims or min(sizes) < 1 or max(sizes) > LARGEST_SIDE:
            raise ValueError("strides and kernels are not positive, one for each network axis")


def _check_intensities(plan: Plan) -> None:
    if not len(plan.normalise) == len(plan.foreground) == len(plan.channels):
        raise ValueError("normalise and foreground have not one entry for each channel")
    for method, values in zip(plan.normalise, plan.foreground, strict=True):
        if method == "ct" and not (all(map(math.isfinite, values)) and values[3] >= 0):
            raise ValueError("foreground holds what is no number, or a negative deviation")
