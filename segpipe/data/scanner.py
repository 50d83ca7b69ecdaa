"""The scanner of the phantom: grids as scanners choose them, and images of a generated anatomy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from segpipe.data.anatomy import TEXTURE_MM, Floats, Tissue, tissues, wave

DIRECTIONS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
# Hounsfield units of the tissues with these MR signals: air, gas, bile, liver, kidney, two kinds of
# fat, and blood with contrast medium
SIGNALS = (0.0, 0.03, 0.3, 0.52, 0.66, 0.86, 1.0, 1.2)
HOUNSFIELD = (-1000, -950, 10, 110, 180, -90, -110, 260)
TEXTURE_HU = 200  # of a texture of deviation 1

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScannerGrid:
    """A scanner's grid.

    Attributes:
        shape: voxels along each of the three axes.
        affine: (4, 4) matrix from voxel indices to mm in RAS+.
        centre_mm: the centre of the body.
    """

    shape: tuple[int, int, int]
    affine: Doubles
    centre_mm: Doubles

    @property
    def spacing_mm(self) -> Doubles:
        """Return the voxel size along each voxel axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def points_mm(self) -> Floats:
        """Return the voxel centres relative to the body's centre: (3, *shape)."""
        origin = self.affine[:3, 3] - self.centre_mm
        points = np.tensordot(self.affine[:3, :3], np.indices(self.shape), axes=1)
        return (points + origin[:, None, None, None]).astype(np.float32)


def draw_grid(
    axes: str,
    rotation: Rotation,
    spacing_mm: Doubles,
    view_mm: Doubles,
    sizes: tuple[tuple[int, int], ...],
    rng: np.random.Generator,
) -> ScannerGrid:
    """Draw a grid whose centre is within 3 mm of the body's centre.

    Args:
        axes: the directions of the voxel axes, such as `LPS`.
        rotation: the rotation of the grid against the patient's axes.
        spacing_mm: voxel size in the plane, and distance of slices, which are the third voxel axis
            as in scanners' files.
        view_mm: field of view along the patient's axes.
        sizes: fewest and most voxels along each axis.
        rng: random numbers.
    """
    directions = np.array([DIRECTIONS[axis] for axis in axes], dtype=float).T
    spacing = spacing_mm[[0, 0, 1]]
    edges = np.rint(np.abs(directions.T) @ view_mm / spacing)
    shape = np.clip(edges, *np.transpose(sizes)).astype(int)
    affine = np.eye(4)
    centre_mm = rng.uniform(-40, 40, 3)  # patients never lie at the scanner's exact centre
    affine[:3, :3] = rotation.as_matrix() @ directions * spacing
    affine[:3, 3] = centre_mm + rng.uniform(-3, 3, 3) - affine[:3, :3] @ (shape - 1) / 2
    return ScannerGrid((int(shape[0]), int(shape[1]), int(shape[2])), affine, centre_mm)


def draw_scan(
    grid: ScannerGrid, rng: np.random.Generator, ct: bool = False
) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Draw a new patient on a grid.

    Args:
        grid: the grid of the scan.
        rng: random numbers.
        ct: whether the image is CT.

    Returns:
        The image without noise, in Hounsfield units, or for MR with a signal of fat of about 1; and
        the label map. Both have the grid's shape.
    """
    patient = tissues(grid.points_mm(), rng)
    textures = [_draw_texture(grid, length_mm, rng) for length_mm in TEXTURE_MM]
    image = np.full(grid.shape, HOUNSFIELD[0] if ct else 0, np.float32)
    label = np.zeros(grid.shape, np.uint8)
    for tissue in patient:
        share = np.clip(tissue.depth_mm / np.float32(grid.spacing_mm[0]) + 0.5, 0, 1)
        signal = _textured_signal(tissue, textures[tissue.texture], ct)
        image += share * (signal - image)
        label[share > 0.5] = tissue.label
    return image, label


def _textured_signal(tissue: Tissue, texture: Floats, ct: bool) -> Floats:
    mottle = tissue.mottle * texture
    if ct:
        hounsfield = np.interp(tissue.signal, SIGNALS, HOUNSFIELD)
        return np.asarray(hounsfield + TEXTURE_HU * mottle, np.float32)
    return np.asarray(tissue.signal * (1 + mottle), np.float32)


def _draw_texture(grid: ScannerGrid, length_mm: float, rng: np.random.Generator) -> Floats:
    """Draw noise of unit variance that is correlated over about `length_mm`."""
    noise = rng.standard_normal(grid.shape, np.float32)
    smooth = gaussian_filter(noise, length_mm / grid.spacing_mm)
    return smooth / smooth.std()


def add_bias_and_noise(image: Floats, points: Floats, rng: np.random.Generator) -> Floats:
    """Multiply by the coil's smooth bias field, and add Rician noise as in magnitude images.

    Args:
        image: an MR image without noise.
        points: its voxel centres in mm, (3, *shape).
        rng: random numbers.
    """
    bias = np.exp(rng.uniform(0.1, 0.25) * np.sin(wave(points, rng, 150.0, 300.0)))
    sigma = rng.uniform(0.03, 0.06)
    real, imaginary = rng.normal(0, sigma, (2, *image.shape))
    return np.hypot(image * bias + real, imaginary).astype(np.float32)
