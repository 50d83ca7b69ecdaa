"""The planes of slices that a 2D network sees, and the directions to which scans are matched."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from segpipe.axes import Axis, Frame
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.orientation import AS_IN_RAS, Orientation, Planes, own_slice_axis
from segpipe.planning.decision import GIVEN, Decision
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.resolution import AXES, derive_spacing
from segpipe.text import count

AXIAL: Axis = 2
# by how much a frame of the scans' own must agree better with them than RAS+, as a cosine
CLEARLY_BETTER = 0.1
MOST_FRAMES = 200  # scans whose own axes are tried as the frame of all


def decide_planes(options: Train, fingerprint: Fingerprint) -> Decision[Planes]:
    """Return across which axis scans are cut into slices; none for 3D networks.

    Args:
        options: the run's options.
        fingerprint: the fingerprint of the training cases, along the axes of RAS+.

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
        return Decision(AS_IN_RAS, "", "")
    if given is not None:
        return Decision(Planes(given, "flat"), f"slices across axis {given}", GIVEN)
    frame = _common_frame(fingerprint)
    found = _own_axes(fingerprint, frame)
    if len(found) > 1:
        return _as_acquired(found, frame)
    axis, why = _common_axis(along_planes(fingerprint, Planes(frame=frame)))
    if frame is not None:
        why += "; axes are those of an oblique scan in the middle of all"
    return Decision(Planes(axis, "flat", frame), f"slices across axis {axis}", why)


def along_planes(fingerprint: Fingerprint, planes: Planes) -> Fingerprint:
    """Return a fingerprint along the axes of model space instead of those of RAS+."""
    if planes.slices == "plan" and planes.frame is None:
        return fingerprint
    rows = []
    for shape, affine in _scans(fingerprint):
        rows.append(planes.orient(shape, affine).order)
    orders = np.array(rows)
    return replace(
        fingerprint,
        spacings_mm=np.take_along_axis(fingerprint.spacings_mm, orders, 1),
        shapes=np.take_along_axis(fingerprint.shapes, orders, 1),
        boxes=np.take_along_axis(fingerprint.boxes, orders, 1),
        directions=None,
    )


def _as_acquired(found: Counter[int], frame: Frame | None) -> Decision[Planes]:
    """Return slices across the axis of each scan; of equal numbers the last axis is the plan's."""
    axis = max(AXES, key=lambda one: (found[one], one))
    numbers = [f"{count(found[one], 'scan')} across axis {one}" for one in sorted(found)]
    why = f"they were acquired in several planes, {', '.join(numbers)}"
    return Decision(Planes(axis, "scan", frame), "slices as each scan was acquired", why)


def _common_axis(fingerprint: Fingerprint) -> tuple[Axis, str]:
    """Return the axis across which all cases are cut, and the reason for it."""
    is_flat = (fingerprint.shapes == 1).all(axis=0)
    if is_flat.any():
        return AXES[int(np.flatnonzero(is_flat)[-1])], "the cases are 2D"
    spacing, _ = derive_spacing(fingerprint)
    last_first = np.round(spacing, 3)[::-1]  # of equal spacings the last axis wins: axial slices
    axis = AXES[AXIAL - int(np.argmax(last_first))]
    return axis, f"the largest spacing, {spacing[axis]:.3g} mm"


def _own_axes(fingerprint: Fingerprint, frame: Frame | None) -> Counter[int]:
    """Return how many scans were acquired across each axis, of those where it is plain."""
    found: Counter[int] = Counter()
    for shape, affine in _scans(fingerprint):
        own = own_slice_axis(shape, affine)
        if own is not None:
            found[Orientation.nearest(affine, frame).order.index(own)] += 1
    return found


def _scans(
    fingerprint: Fingerprint,
) -> Iterator[tuple[Sequence[int], Float[np.ndarray, "3 3"]]]:
    """Yield voxels along each axis, and the axes in mm, of each case."""
    directions = _directions(fingerprint)
    for shape, spacing, axes in zip(
        fingerprint.shapes, fingerprint.spacings_mm, directions, strict=True
    ):
        yield shape.tolist(), axes * spacing


def _directions(fingerprint: Fingerprint) -> Float[np.ndarray, "cases 3 3"]:
    if fingerprint.directions is not None:
        return fingerprint.directions
    return np.tile(np.eye(3), (len(fingerprint.shapes), 1, 1))


def _common_frame(fingerprint: Fingerprint) -> Frame | None:
    """Return the axes of the scan that agree best with those of all; None where RAS+ does as well.

    Oblique scans of one kind, as the short axis of hearts, lie around a plane that is far from any
    of RAS+. The axis of RAS+ that is nearest to their slices' then differs between patients.
    """
    in_ras = _own_axes(fingerprint, None)
    if not in_ras:
        return None
    directions = _directions(fingerprint)
    step = -(-len(directions) // MOST_FRAMES)
    candidates = directions[::step].transpose(0, 2, 1)
    agreement = np.array([_agreement(one, directions) for one in candidates])
    best = int(agreement.argmax())
    frame = _as_frame(candidates[best])
    gain = float(agreement[best]) - _agreement(np.eye(3), directions)
    has_fewer = len(_own_axes(fingerprint, frame)) < len(in_ras)
    return frame if has_fewer or gain > CLEARLY_BETTER else None


def _agreement(
    frame: Float[np.ndarray, "3 3"], directions: Float[np.ndarray, "cases 3 3"]
) -> float:
    """Return the mean cosine between the axes of all scans and the frame's that are nearest."""
    return float(np.abs(frame @ directions).max(axis=1).mean())


def _as_frame(directions: Float[np.ndarray, "3 3"]) -> Frame:
    """Return the nearest perpendicular directions, since a gantry may have been tilted."""
    left, _, right = np.linalg.svd(directions)
    x, y, z = np.round(left @ right, 6).tolist()
    return (x[0], x[1], x[2]), (y[0], y[1], y[2]), (z[0], z[1], z[2])
