"""Stacks of DICOM frames: which frames form one volume, and where its voxels lie."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_frames import Frame

UNEVEN = 0.02  # share of a slice distance that a slice may be off without a word
ROUNDED_MM = 0.1  # positions that are rounded to 0.1 mm lie at most so far from an even spacing
TILTED_DEG = 0.1
TILTED_MM = 0.1  # rounded positions of few slices seem tilted by more than TILTED_DEG
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass
class Tolerance:
    """How far slices may lie from an even spacing; one value for this process.

    Attributes:
        mm: the distance that an option allows, mm; of thick slices `UNEVEN` allows more.
    """

    mm: float = ROUNDED_MM


TOLERANCE = Tolerance()


@dataclass(frozen=True)
class Stack:
    """The frames of one volume.

    Attributes:
        frames: sorted along their normal.
        traits: what tells it from others of its series, as keywords and values.
        copies: files that hold the same values at the same place, which are left out.
    """

    frames: tuple[Frame, ...]
    traits: tuple[tuple[str, object], ...] = ()
    copies: tuple[Path, ...] = ()

    @property
    def first(self) -> Frame:
        """The first frame: the lowest one, where the frames are slices."""
        return self.frames[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return (*self.first.header.size, len(self.frames))

    @property
    def files(self) -> list[Path]:
        """The files of the frames, in their order."""
        return list(dict.fromkeys(frame.path for frame in self.frames))

    def affine(self) -> np.ndarray:
        """Return the affine to mm in RAS+, rounded to single precision as NIfTI headers hold it.

        Raises:
            DataError: if the frames are not evenly spaced slices, all upright and complete.
        """
        self._check()
        if not self.first.placed:
            return _as_nifti(_flat_affine(self.first))
        column_mm, row_mm = self.first.spacing or (1.0, 1.0)
        affine = np.eye(4)
        affine[:3, 0] = self.first.rows[0] * column_mm
        affine[:3, 1] = self.first.rows[1] * row_mm
        affine[:3, 2] = self._step()
        affine[:3, 3] = self._lowest().position
        return _as_nifti(affine)

    def warnings(self) -> list[str]:
        """Return what is odd about the stack, and survived."""
        found = []
        if self.copies:
            found.append(
                f"{len(self.copies)} of {len(self.copies) + len(self.files)} files are copies of "
                f"others, such as {self.copies[0].name}; they are left out"
            )
        if self.first.spacing is None:
            found.append("has no pixel spacing; 1 mm is taken")
        if not self.first.placed and self.first.header.sectional:
            found.append("does not say where its slice lies; it is laid at the centre")
        if self.first.placed and len(self.frames) > 1:
            step = self._step()
            off_mm = float(_off_grid(self.frames, step).max())
            if off_mm > UNEVEN * float(np.linalg.norm(step)):
                found.append(
                    f"slices lie up to {off_mm:.2g} mm off an even spacing of "
                    f"{np.linalg.norm(step):.4g} mm, as if their positions were rounded"
                )
        elif self.first.placed and self.first.thickness is None:
            found.append("has one slice and no thickness; 1 mm is taken")
        return found

    def _lowest(self) -> Frame:
        """Return the frame of the first slice."""
        return self.first

    def _step(self) -> np.ndarray:
        """Return the vector from one slice to the next, mm."""
        return _slice_step(self.frames)

    def _check(self) -> None:
        """Check that every frame can be used, and that they form one stack of slices."""
        for frame in self.frames:
            frame.check()
        placed = [frame for frame in self.frames if frame.placed]
        if len(self.frames) == 1:
            return
        for frame in self.frames:
            if not frame.placed:
                raise DataError(
                    f"{frame.path}: has no position or orientation of the slice (tag 0020,0032)"
                )
        _check_doubles(placed)
        _check_tilt(placed)
        _check_spacing(placed)


def place_of(frame: Frame) -> tuple[float, ...]:
    """Return a frame's position, rounded to 0.001 mm."""
    assert frame.placed
    return tuple((np.round(frame.position, 3) + 0.0).tolist())


def _as_nifti(affine: np.ndarray) -> np.ndarray:
    return (LPS_TO_RAS @ affine).astype(np.float32).astype(float)


def _flat_affine(frame: Frame) -> np.ndarray:
    """Return the LPS+ affine of an image without a place, centred as dcm2niix does."""
    spacing = np.array(frame.spacing or (1.0, 1.0))
    affine = np.diag([*spacing, frame.thickness or 1.0, 1.0])
    affine[:2, 3] = -(np.array(frame.header.size) - 1) / 2 * spacing
    return affine


def _positions(frames: Sequence[Frame]) -> np.ndarray:
    return np.array([frame.position for frame in frames])


def _slice_step(frames: Sequence[Frame]) -> np.ndarray:
    """Return the vector from one slice to the next, mm; the thickness where there is only one."""
    if len(frames) == 1:
        return frames[0].normal * (frames[0].thickness or 1.0)
    positions = _positions(frames)
    return (positions[-1] - positions[0]) / (len(frames) - 1)


def _off_grid(frames: Sequence[Frame], step: np.ndarray) -> np.ndarray:
    """Return how far each slice lies from an even spacing, mm."""
    positions = _positions(frames)
    even = positions[0] + np.arange(len(frames))[:, None] * step
    return np.linalg.norm(positions - even, axis=1)


def _check_doubles(frames: Sequence[Frame]) -> None:
    """Check that no two frames lie at one place.

    Raises:
        DataError: if they do.
    """
    (_, most), *_ = Counter(map(place_of, frames)).most_common(1)
    if most > 1:
        folder = frames[0].path.parent
        raise DataError(
            f"{folder}: holds up to {most} different images at one position, and no tag "
            f"(ImageType, EchoTime ...) tells them apart; the first is {frames[0].name}"
        )


def _check_tilt(frames: Sequence[Frame]) -> None:
    """Check that the stack runs along the normal of its slices.

    Raises:
        DataError: if it does not, since its voxels would not be boxes.
    """
    direction = np.subtract(frames[-1].position, frames[0].position)
    along = float(direction @ frames[0].normal)
    aside = float(np.linalg.norm(direction - along * frames[0].normal))
    tilt_deg = math.degrees(math.atan2(aside, along))
    if tilt_deg > TILTED_DEG and aside > TILTED_MM:
        raise DataError(
            f"{frames[0].path.parent}: the gantry is tilted by {tilt_deg:.1f} degrees; "
            "resample the series to upright slices"
        )


def _check_spacing(frames: Sequence[Frame]) -> None:
    """Check that neighbouring slices lie equally far apart.

    Raises:
        DataError: if they do not, with the likely reason.
    """
    steps = np.diff(_positions(frames) @ frames[0].normal)
    step = _slice_step(frames)
    even_mm = float(np.linalg.norm(step))
    allowed_mm = max(TOLERANCE.mm, UNEVEN * even_mm)
    gaps = abs(steps - even_mm) > 0.5 * even_mm
    if not gaps.any() and (_off_grid(frames, step) <= allowed_mm + 1e-6).all():
        return
    usual = float(np.median(steps))
    worst = int(np.abs(steps - usual).argmax())
    ratio = float(steps[worst] / usual) if usual > 0 else 0.0
    missing = round(ratio) - 1
    reason = (
        f"the spacing is uneven; where up to {float(_off_grid(frames, step).max()):.2g} mm do not "
        "matter, data.slice_tolerance of a training and slice_tolerance of a prediction allow it"
    )
    if missing > 0 and abs(ratio - round(ratio)) < 0.1:
        reason = f"{missing} missing between them"
    raise DataError(
        f"{frames[0].path.parent}: {frames[worst].name} and {frames[worst + 1].name} lie "
        f"{steps[worst]:.3g} mm apart, most slices {usual:.3g} mm: {reason}"
    )
