"""Scanner grid <-> model grid.

Space is always three-dimensional: a 2D image is a volume of one slice. A volume is a MONAI `MetaTensor` of shape
`(c, x, y, z)` whose affine maps voxel indices to millimetres in RAS+ (x to the right, y to the front, z to the head).
Model space has the axes of RAS+ and a spacing of its own. Its grid covers the same field of view, edge to edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor

from segpipe.errors import DataError


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
    def of(cls, volume: MetaTensor) -> "Grid":
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
        return volume.permute(0, *(axis + 1 for axis in order)).flip([axis + 1 for axis in backwards])

    def from_ras(self, volume: Tensor) -> Tensor:
        """Undoes `to_ras`."""
        order, backwards = self.axes
        return volume.flip([axis + 1 for axis in backwards]).permute(0, *(int(axis) + 1 for axis in np.argsort(order)))


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
        x, y, z = (size if goal is None else max(1, round(size * mm / goal)) for size, mm, goal in scan)
        return x, y, z

    def enter(self, volume: MetaTensor) -> Float[Tensor, "c x y z"]:
        """The image on model space's grid, linearly interpolated, float32."""
        grid = Grid.of(volume)
        return _resize(grid.to_ras(volume.as_tensor()).float(), self.shape(grid), "trilinear").contiguous()

    def enter_labels(self, labels: MetaTensor) -> Integer[Tensor, "1 x y z"]:
        """The label map on model space's grid, each voxel the label of the nearest scanned one, uint8."""
        grid = Grid.of(labels)
        return _resize(grid.to_ras(labels.as_tensor()), self.shape(grid), "nearest-exact").to(torch.uint8).contiguous()

    def leave(self, probabilities: Float[Tensor, "k x y z"], grid: Grid) -> Integer[Tensor, "1 i j k_"]:
        """The most probable label on the scan's own grid.

        Probabilities are interpolated, not logits or labels, class by class under a running maximum: there is never
        an array of all classes on the scan's grid.
        """
        shape = grid.ras_shape
        best = _resize(probabilities[:1], shape, "trilinear")
        labels = torch.zeros_like(best, dtype=torch.uint8)
        for label in range(1, len(probabilities)):
            candidate = _resize(probabilities[label : label + 1], shape, "trilinear")
            labels[candidate > best] = label
            best = torch.maximum(best, candidate)
        return grid.from_ras(labels)

    def leave_regions(
        self, probabilities: Float[Tensor, "k x y z"], ids: Sequence[int], grid: Grid
    ) -> Integer[Tensor, "1 i j k_"]:
        """Regions that are more likely than not on the scan's own grid, each painted with its id over those before."""
        labels = torch.zeros((1, *grid.ras_shape), dtype=torch.uint8, device=probabilities.device)
        for region, number in enumerate(ids):
            labels[_resize(probabilities[region : region + 1], grid.ras_shape, "trilinear") > 0.5] = number
        return grid.from_ras(labels)


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
        raise DataError(f"{other_path}: lies up to {apart:.2f} mm from {path.name}; their affines must agree")


def corners_apart_mm(grid: Grid, other: Grid) -> float:
    """How far two fields of view of one shape lie apart, along the worst axis at the worst corner."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in grid.shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.abs((grid.affine - other.affine) @ corners).max())
