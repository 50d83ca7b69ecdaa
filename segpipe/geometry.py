"""The grid of a scan, the grid of the network (model space), and the way from one to the other.

Space is always three-dimensional: a 2D image is a volume of one slice. A volume has the shape
`(c, x, y, z)` and an affine that maps voxel indices to millimetres in RAS+ (x to the right, y to
the front, z to the head): a MONAI `MetaTensor`, or a `Volume` where MONAI would take longer to
import than the work takes. Model space has the axes of RAS+, or of a scan's slices (`Planes`), and
a spacing of its own. Its grid covers the same field of view, edge to edge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Integer, Num
from torch import Tensor

from segpipe import nnunet_rules
from segpipe.errors import DataError
from segpipe.orientation import AS_IN_RAS, Orientation, Planes
from segpipe.resampling import NativeLabels, ProbabilityObserver, average, resize


@runtime_checkable
class Located(Protocol):
    """Voxels `(c, x, y, z)` and their affine: a `Volume`, or a `MetaTensor` of MONAI's."""

    @property
    def shape(self) -> Any:
        """Return the number of channels, and of voxels along the three axes."""
        ...

    @property
    def affine(self) -> Any:
        """Return the (4, 4) matrix from voxel indices to mm in RAS+."""
        ...

    def as_tensor(self) -> Tensor:
        """Return the voxels without the affine."""
        ...

    def numpy(self) -> np.ndarray:
        """Return the voxels as an array."""
        ...


@dataclass(frozen=True)
class Volume:
    """Voxels and their affine.

    Attributes:
        voxels: shape `(c, x, y, z)`.
        affine: (4, 4) matrix from voxel indices to mm in RAS+.
    """

    voxels: Num[Tensor, "c x y z"]
    affine: np.ndarray

    @property
    def shape(self) -> torch.Size:
        """Return the number of channels, and of voxels along the three axes."""
        return self.voxels.shape

    def as_tensor(self) -> Tensor:
        """Return the voxels without the affine."""
        return self.voxels

    def numpy(self) -> np.ndarray:
        """Return the voxels as an array."""
        return self.voxels.numpy()


@dataclass(frozen=True)
class Grid:
    """The positions of the voxels of a scan.

    Attributes:
        shape: voxels along each of the three axes.
        affine: (4, 4) matrix from voxel indices to mm in RAS+.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def of(cls, volume: Located) -> "Grid":
        """Return the grid of a volume of shape `(c, x, y, z)`."""
        x, y, z = volume.shape[-3:]
        return cls((x, y, z), np.asarray(volume.affine, dtype=float))

    @property
    def spacing_mm(self) -> np.ndarray:
        """Return the voxel size in mm along each axis, in the scan's own order."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Return the volume of one voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def ras(self) -> Orientation:
        """Return the scan's axes that are nearest to those of RAS+."""
        return Orientation.nearest(self.affine)

    @property
    def ras_shape(self) -> tuple[int, int, int]:
        """Return the voxels along left-right, back-front and foot-head."""
        return self.ras.along(self.shape)

    @property
    def ras_spacing_mm(self) -> tuple[float, float, float]:
        """Return the voxel size in mm along left-right, back-front and foot-head."""
        return self.ras.along(self.spacing_mm.tolist())

    @property
    def ras_directions(self) -> Float[np.ndarray, "3 3"]:
        """Return unit vectors in RAS+, one a column, of the scan's axes in the same order."""
        turned = self.ras
        directions = (self.affine[:3, :3] / self.spacing_mm)[:, list(turned.order)]
        directions[:, list(turned.backwards)] *= -1
        return directions

    def part(self, box: tuple[slice, slice, slice]) -> "Grid":
        """Return the grid of the voxels in a box, where they are."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [edge.start for edge in box]
        x, y, z = (edge.stop - edge.start for edge in box)
        return Grid((x, y, z), affine)

    def to_ras(self, volume: Tensor) -> Tensor:
        """Return a volume `(c, *shape)` in RAS+ order `(c, x, y, z)`, without interpolation."""
        return self.ras.turn(volume)

    def from_ras(self, volume: Tensor) -> Tensor:
        """Return a volume `(c, x, y, z)` in the scan's own order `(c, *shape)`."""
        return self.ras.turn_back(volume)

    def ras_view(self, array: np.ndarray) -> np.ndarray:
        """Return a writable view of an array `(c, *shape)` in RAS+ order."""
        return self.ras.view(array)


@dataclass(frozen=True)
class ModelSpace:
    """What the network sees: axes of RAS+, or as `planes` has them, and this spacing.

    Attributes:
        spacing_mm: voxel size along the axes of model space; None: as the scan's.
        planes: the axes, where they are not those of RAS+ for every scan.
        averages: whether voxels are averaged along axes that become more than twice as coarse.
        as_nnunet: whether volumes are resampled by nnU-Net's rules, and logits interpolated.
    """

    spacing_mm: tuple[float | None, float | None, float | None]
    planes: Planes = AS_IN_RAS
    averages: bool = False
    as_nnunet: bool = False

    def orientation(self, grid: Grid) -> Orientation:
        """Return the scan's axis for each axis of model space."""
        return self.planes.orient(grid.shape, grid.affine)

    def shape(self, grid: Grid) -> tuple[int, int, int]:
        """Return the voxels of a scan's field of view in model space."""
        orientation = self.orientation(grid)
        sizes = list(orientation.along(grid.shape))
        spacing_mm = orientation.along(grid.spacing_mm.tolist())
        for axis, target in enumerate(self.spacing_mm):
            if target is None:
                continue
            if self.as_nnunet:
                sizes[axis] = nnunet_rules.scaled(sizes[axis], spacing_mm[axis], target)
            else:
                sizes[axis] = max(1, round(sizes[axis] * spacing_mm[axis] / target))
        return sizes[0], sizes[1], sizes[2]

    def to_model(self, volume: Located) -> Float[Tensor, "c x y z"]:
        """Return an image on the grid of model space, linearly interpolated, float32.

        By nnU-Net's rules it is interpolated by cubic splines.
        """
        grid = Grid.of(volume)
        native = self.orientation(grid).turn(volume.as_tensor()).float()
        if self.as_nnunet:
            coarse = nnunet_rules.coarse_axis(*self._spacings(grid))
            return nnunet_rules.resample(native, self.shape(grid), coarse).contiguous()
        if self.averages:
            native = average(native, self.shape(grid))
        return resize(native, self.shape(grid), "trilinear").contiguous()

    def _spacings(self, grid: Grid) -> tuple[list[float], list[float]]:
        """Return the spacing of a scan and of model space, in mm along its axes."""
        native = list(self.orientation(grid).along(grid.spacing_mm.tolist()))
        own = [target or mm for target, mm in zip(self.spacing_mm, native, strict=True)]
        return native, own

    def labels_to_model(self, labels: Located) -> Integer[Tensor, "1 x y z"]:
        """Return a label map on the grid of model space, uint8, by the nearest scanned voxel."""
        grid = Grid.of(labels)
        native = self.orientation(grid).turn(labels.as_tensor())
        return resize(native, self.shape(grid), "nearest-exact").to(torch.uint8).contiguous()

    def to_native(
        self,
        slabs: Iterable[Float[Tensor, "k x y z"]],
        axis: int,
        grid: Grid,
        ids: Sequence[int] | None = None,
        observer: ProbabilityObserver | None = None,
        block_voxels: int | None = None,
    ) -> Integer[Tensor, "1 i j k_"]:
        """Return the most probable label of each voxel of a scan, or all regions above 0.5.

        Each slab is interpolated and decided as soon as it comes (`NativeLabels`). By nnU-Net's
        rules the slabs hold logits.

        Args:
            slabs: probabilities in model space; they follow one another along `axis`, and together
                make the volume.
            axis: the axis of model space.
            grid: the grid of the scan.
            ids: the ids of overlapping regions, the label that each paints over those before it;
                None where labels exclude one another.
            observer: sees the probabilities on the scan's grid as they pass, along the axes of
                model space.
            block_voxels: the voxels of the scan's grid that are decided at once; None: the
                usual number.
        """
        orientation = self.orientation(grid)
        shape = orientation.along(grid.shape)
        coarse = None
        if self.as_nnunet:
            native_mm, own_mm = self._spacings(grid)
            coarse = nnunet_rules.coarse_axis(own_mm, native_mm)
        native = NativeLabels(
            shape,
            self.shape(grid),
            axis,
            ids,
            observer,
            block_voxels,
            of_logits=self.as_nnunet,
            coarse=coarse,
        )
        for slab in slabs:
            native.add(slab)
        return orientation.turn_back(native.labels[None])


def check_same_grid(path: Path, grid: Grid, other_path: Path, other: Grid) -> None:
    """Check that the voxels of two files lie in the same places.

    Raises:
        DataError: if the shapes differ, or any corner of the field of view lies over half a voxel
            apart.
    """
    if grid.shape != other.shape:
        raise DataError(
            f"{other_path}: has the shape {other.shape}, but {path.name} has {grid.shape}; "
            "they must be equal"
        )
    apart = corners_apart_mm(grid, other)
    if apart > grid.spacing_mm.min() / 2:
        raise DataError(
            f"{other_path}: lies up to {apart:.2f} mm from {path.name}; their affines must agree"
        )


def corners_apart_mm(grid: Grid, other: Grid) -> float:
    """Return the largest distance along an axis between corners of two fields of view, in mm."""
    x, y, z = grid.shape
    corners = np.array(np.meshgrid((0, x - 1), (0, y - 1), (0, z - 1), [1], indexing="ij"))
    apart = (grid.affine - other.affine) @ corners.reshape(4, -1)
    return float(np.abs(apart).max())
