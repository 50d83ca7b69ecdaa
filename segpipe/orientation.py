"""Which axis of a scan becomes which axis of model space, and how a volume is turned so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor

from segpipe.axes import Axes, Axis, Frame, Slices

T = TypeVar("T")
# slices about twice as thick as their pixels are wide were acquired as slices
THICK = 1.9


@dataclass(frozen=True)
class Orientation:
    """Three axes for a scan, each along one of the scan's own.

    Attributes:
        order: the scan's axis for each of the three.
        backwards: which of the three run against the scan's axis.
    """

    order: tuple[int, int, int]
    backwards: tuple[int, ...]

    @classmethod
    def nearest(cls, affine: np.ndarray, frame: Frame | None = None) -> "Orientation":
        """Return the scan's axes that are nearest to those of a frame.

        Args:
            affine: its first three rows and columns map voxel indices to mm in RAS+.
            frame: three perpendicular directions in RAS+; None: RAS+ itself.
        """
        linear = np.eye(4)
        linear[:3, :3] = affine[:3, :3]
        if frame is not None:
            linear[:3, :3] = np.array(frame) @ linear[:3, :3]
        change = ornt_transform(io_orientation(linear), axcodes2ornt("RAS"))
        order = np.argsort(change[:, 0])
        x, y, z = map(int, order)
        return cls((x, y, z), tuple(map(int, np.flatnonzero(change[order, 1] < 0))))

    def moved(self, axis: int, to: int) -> "Orientation":
        """Return these axes with one of them in another place; the other two keep their order."""
        places = [place for place in range(3) if place != axis]
        places.insert(to, axis)
        x, y, z = self.along(self.order, places)
        backwards = []
        for place, moved in enumerate(places):
            if moved in self.backwards:
                backwards.append(place)
        return Orientation((x, y, z), tuple(backwards))

    def along(self, values: Sequence[T], order: Sequence[int] | None = None) -> tuple[T, T, T]:
        """Return a value per axis of the scan as a value per axis of these."""
        x, y, z = order or self.order
        return values[x], values[y], values[z]

    def turn(self, volume: Tensor) -> Tensor:
        """Return a scan's volume `(c, i, j, k)` along these axes, without interpolation."""
        return volume.permute(_after_channel(self.order)).flip(self._flipped)

    def turn_back(self, volume: Tensor) -> Tensor:
        """Return a volume along these axes in the scan's own order."""
        inverse = np.argsort(self.order).tolist()
        return volume.flip(self._flipped).permute(_after_channel(inverse))

    def view(self, array: np.ndarray) -> np.ndarray:
        """Return a writable view of a scan's array `(c, i, j, k)` along these axes."""
        return np.flip(array.transpose(_after_channel(self.order)), self._flipped)

    @property
    def _flipped(self) -> tuple[int, ...]:
        return _after_channel(self.backwards)[1:]


@dataclass(frozen=True)
class Planes:
    """The axes of model space, scan by scan.

    They are the scan's axes nearest to the frame. Where a scan has a slice axis of its own, that
    one takes the place of `slice_axis`; the axes in the plane keep their order and direction: to
    the right before to the front before to the head.

    Attributes:
        slice_axis: axis of model space that a 2D network does not see; None for a 3D network.
        slices: `plan`: that axis is the same for all scans; `flat`: a scan with one voxel along
            one axis has its slice there; `scan`: that, and a scan of thick slices is seen as they
            were acquired.
        frame: three perpendicular directions in RAS+; None: RAS+ itself.
        axes: `ras`: as said; `file`: the scan's axes as its file has them, whatever their
            directions.
    """

    slice_axis: Axis | None = None
    slices: Slices = "plan"
    frame: Frame | None = None
    axes: Axes = "ras"

    def orient(self, shape: Sequence[int], affine: np.ndarray) -> Orientation:
        """Return the axes of model space for a scan.

        Args:
            shape: voxels along each of the scan's axes.
            affine: its first three rows and columns map voxel indices to mm in RAS+.
        """
        if self.axes == "file":
            return AS_IN_FILE
        nearest = Orientation.nearest(affine, self.frame)
        if self.slices == "plan" or self.slice_axis is None:
            return nearest
        own = flat_axis(shape) if self.slices == "flat" else own_slice_axis(shape, affine)
        if own is None:
            return nearest
        return nearest.moved(nearest.order.index(own), self.slice_axis)


AS_IN_RAS = Planes()
AS_IN_FILE = Orientation((0, 1, 2), ())


def flat_axis(shape: Sequence[int]) -> int | None:
    """Return the axis along which alone a scan has one voxel; None if there is none."""
    flat = [axis for axis, size in enumerate(shape) if size == 1]
    return flat[0] if len(flat) == 1 else None


def own_slice_axis(shape: Sequence[int], affine: Float[np.ndarray, "_ _"]) -> int | None:
    """Return the axis across which a scan was acquired, by its shape and the size of its voxels.

    That is the axis of one voxel, or else that of slices much thicker than pixels are wide; None
    where there is neither.
    """
    flat = flat_axis(shape)
    if flat is not None:
        return flat
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    thickest = int(np.argmax(spacing))
    in_plane = np.delete(spacing, thickest).max()
    return thickest if spacing[thickest] >= THICK * in_plane else None


def _after_channel(axes: Iterable[int]) -> tuple[int, ...]:
    """Return 0, the axis of the channels, and then these spatial axes as they follow it."""
    return 0, *(axis + 1 for axis in axes)
