"""Scanner grid <-> model grid.

Space is always three-dimensional: a 2D image is a volume of one slice. A volume has the shape `(c, x, y, z)` and an
affine that maps voxel indices to millimetres in RAS+ (x to the right, y to the front, z to the head): a MONAI
`MetaTensor`, or a `Volume` where MONAI would take longer to import than the work takes. Model space has the axes of
RAS+ and a spacing of its own. Its grid covers the same field of view, edge to edge.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer, Num
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor

from segpipe.errors import DataError

MOST_VOXELS = 2**24  # of the scan's grid that are decided at once: 64 MiB for each array
# sees rows of the scan's field of view, which lie there along an axis of RAS+, class by class, and hands the classes on
Watch = Callable[[slice, Iterable[Tensor]], Iterable[Tensor]]


@runtime_checkable
class Located(Protocol):
    """Voxels `(c, x, y, z)` and where they lie: a `Volume`, or a `MetaTensor` of MONAI's."""

    @property
    def shape(self) -> Any:
        """Channels, and voxels along the three axes."""
        ...

    @property
    def affine(self) -> Any:
        """(4, 4) matrix from voxel indices to mm in RAS+."""
        ...

    def as_tensor(self) -> Tensor:
        """The voxels alone."""
        ...

    def numpy(self) -> np.ndarray:
        """The voxels as an array."""
        ...


@dataclass(frozen=True)
class Volume:
    """Voxels and where they lie.

    Attributes:
        voxels: shape `(c, x, y, z)`.
        affine: (4, 4) matrix from voxel indices to mm in RAS+.
    """

    voxels: Num[Tensor, "c x y z"]
    affine: np.ndarray

    @property
    def shape(self) -> torch.Size:
        """Channels, and voxels along the three axes."""
        return self.voxels.shape

    def as_tensor(self) -> Tensor:
        """The voxels alone."""
        return self.voxels

    def numpy(self) -> np.ndarray:
        """The voxels as an array."""
        return self.voxels.numpy()


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a scan lie.

    Attributes:
        shape: voxels along each of the three axes.
        affine: (4, 4) matrix from voxel indices to mm in RAS+.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def of(cls, volume: Located) -> "Grid":
        """The grid of a volume of shape `(c, x, y, z)`."""
        x, y, z = volume.shape[-3:]
        return cls((x, y, z), np.asarray(volume.affine, dtype=float))

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel size in mm along each axis of the scan's own order."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def axes(self) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """The scan's axis for each axis of RAS+, and those axes of RAS+ along which it runs backwards."""
        change = ornt_transform(io_orientation(self.affine), axcodes2ornt("RAS"))
        order = np.argsort(change[:, 0])
        x, y, z = (int(axis) for axis in order)
        return (x, y, z), tuple(axis for axis in range(3) if change[order[axis], 1] < 0)

    @property
    def ras_shape(self) -> tuple[int, int, int]:
        """Voxels along left-right, back-front and foot-head."""
        x, y, z = (self.shape[axis] for axis in self.axes[0])
        return x, y, z

    @property
    def ras_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size in mm along left-right, back-front and foot-head."""
        x, y, z = (float(self.spacing_mm[axis]) for axis in self.axes[0])
        return x, y, z

    def to_ras(self, volume: Tensor) -> Tensor:
        """Turns `(c, *shape)` in the scan's order into `(c, x, y, z)` in RAS+ order, without interpolation."""
        order, backwards = self.axes
        return volume.permute(0, *(axis + 1 for axis in order)).flip(
            [axis + 1 for axis in backwards]
        )

    def from_ras(self, volume: Tensor) -> Tensor:
        """Undoes `to_ras`."""
        order, backwards = self.axes
        return volume.flip([axis + 1 for axis in backwards]).permute(
            0, *(int(axis) + 1 for axis in np.argsort(order))
        )

    def ras_view(self, array: np.ndarray) -> np.ndarray:
        """`to_ras` of an array `(c, *shape)`, through which that array can be written."""
        order, backwards = self.axes
        return np.flip(
            array.transpose(0, *(axis + 1 for axis in order)), tuple(axis + 1 for axis in backwards)
        )


@dataclass(frozen=True)
class ModelSpace:
    """What the network sees: RAS+ axes and this spacing.

    Attributes:
        spacing_mm: voxel size along left-right, back-front and foot-head; None keeps the scan's own.
    """

    spacing_mm: tuple[float | None, float | None, float | None]

    def shape(self, grid: Grid) -> tuple[int, int, int]:
        """Voxels of a scan's field of view in model space."""
        scan = zip(grid.ras_shape, grid.ras_spacing_mm, self.spacing_mm, strict=True)
        x, y, z = (
            size if goal is None else max(1, round(size * mm / goal)) for size, mm, goal in scan
        )
        return x, y, z

    def enter(self, volume: Located) -> Float[Tensor, "c x y z"]:
        """The image on model space's grid, linearly interpolated, float32."""
        grid = Grid.of(volume)
        return _resize(
            grid.to_ras(volume.as_tensor()).float(), self.shape(grid), "trilinear"
        ).contiguous()

    def labels_to_model(self, labels: Located) -> Integer[Tensor, "1 x y z"]:
        """The label map on model space's grid, each voxel the label of the nearest scanned one, uint8."""
        grid = Grid.of(labels)
        return (
            _resize(grid.to_ras(labels.as_tensor()), self.shape(grid), "nearest-exact")
            .to(torch.uint8)
            .contiguous()
        )

    def leave(
        self,
        slabs: Iterable[Float[Tensor, "k x y z"]],
        axis: int,
        grid: Grid,
        ids: Sequence[int] | None = None,
        watch: Watch | None = None,
    ) -> Integer[Tensor, "1 i j k_"]:
        """The most probable label on the scan's own grid, or regions that are more likely than not.

        Probabilities are interpolated, not logits or labels, class by class under a running maximum, and of each slab
        as soon as it comes: there is never an array of all classes on the scan's grid, nor on model space's.

        Args:
            slabs: probabilities in model space; they follow one another along `axis` and together make the volume.
            axis: of RAS+.
            grid: the scan's.
            ids: of overlapping regions: what each paints, over those before it; None where labels exclude one another.
            watch: is shown the probabilities on the scan's grid, in RAS+ order, as they pass.
        """
        shape, sizes = grid.ras_shape, self.shape(grid)
        lower, upper, share = _between(shape[axis], sizes[axis])
        labels, rows, first, done = torch.empty(0), torch.empty(0), 0, 0
        for slab in slabs:
            if not labels.numel():
                labels = torch.zeros(shape, dtype=torch.uint8, device=slab.device)
                rows = slab.narrow(axis + 1, 0, 0)
            rows = torch.cat([rows, slab], axis + 1) if rows.shape[axis + 1] else slab
            known = first + rows.shape[axis + 1]
            ready = int(torch.searchsorted(upper, known))
            step = max(1, MOST_VOXELS * shape[axis] // math.prod(shape))
            for begin in range(done, ready, step):
                some = slice(begin, min(begin + step, ready))
                piece = [
                    some.stop - some.start if way == axis else size
                    for way, size in enumerate(shape)
                ]
                between = (lower[some] - first, upper[some] - first, share[some])
                classes = (_rows(one, axis, *between, piece) for one in rows)
                decided = _decide(watch(some, classes) if watch else classes, ids)
                labels.narrow(axis, some.start, some.stop - some.start).copy_(decided)
            kept = min(int(lower[ready]), known) if ready < len(lower) else known
            rows, first, done = rows.narrow(axis + 1, kept - first, known - kept), kept, ready
        return grid.from_ras(labels[None])


def _between(size: int, of: int) -> tuple[Tensor, Tensor, Tensor]:
    """For `size` voxels over the field of view of `of` others: the two that each lies between, and how far from one."""
    place = ((torch.arange(size, dtype=torch.float64) + 0.5) * of / size - 0.5).clamp(0, of - 1)
    lower = place.long()
    return lower, (lower + 1).clamp(max=of - 1), (place - lower).float()


def _rows(
    volume: Float[Tensor, "x y z"],
    axis: int,
    lower: Tensor,
    upper: Tensor,
    share: Tensor,
    shape: Sequence[int],
) -> Float[Tensor, "x_ y_ z_"]:
    """One class, trilinearly interpolated: first along `axis`, then in the plane."""
    device = volume.device
    found = volume.index_select(axis, lower.to(device))
    if share.any():
        weights = share.to(device).reshape([-1 if way == axis else 1 for way in range(3)])
        found = found.lerp(volume.index_select(axis, upper.to(device)), weights)
    return _resize(found[None], (shape[0], shape[1], shape[2]), "trilinear")[0]


def _decide(
    classes: Iterable[Float[Tensor, "x y z"]], ids: Sequence[int] | None
) -> Integer[Tensor, "x y z"]:
    labels, best = torch.empty(0), torch.empty(0)
    for number, candidate in enumerate(classes):
        if number == 0:
            labels, best = torch.zeros_like(candidate, dtype=torch.uint8), candidate
        if ids is not None:
            labels[candidate > 0.5] = ids[number]
        elif number > 0:
            labels[candidate > best] = number
            best = torch.maximum(best, candidate)
    return labels


def _resize(volume: Tensor, shape: tuple[int, int, int], mode: str) -> Tensor:
    if tuple(volume.shape[1:]) == shape:
        return volume
    corners = None if mode.startswith("nearest") else False
    return F.interpolate(volume[None].float(), shape, mode=mode, align_corners=corners)[0]


def check_same_grid(path: Path, grid: Grid, other_path: Path, other: Grid) -> None:
    """Refuses two files whose voxels do not lie in the same places.

    Raises:
        DataError: if the shapes differ, or any corner of the field of view lies over half a voxel apart.
    """
    if grid.shape != other.shape:
        raise DataError(
            f"{other_path}: has the shape {other.shape}, but {path.name} has {grid.shape}; they must be equal"
        )
    apart = corners_apart_mm(grid, other)
    if apart > grid.spacing_mm.min() / 2:
        raise DataError(
            f"{other_path}: lies up to {apart:.2f} mm from {path.name}; their affines must agree"
        )


def corners_apart_mm(grid: Grid, other: Grid) -> float:
    """How far two fields of view of one shape lie apart, along the worst axis at the worst corner."""
    corners = np.array(
        np.meshgrid(*[(0, size - 1) for size in grid.shape], [1], indexing="ij")
    ).reshape(4, -1)
    return float(np.abs((grid.affine - other.affine) @ corners).max())
