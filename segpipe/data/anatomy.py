"""The anatomy of the phantom: shapes and signals of a generated abdomen, in mm of patient space.

x leads to the right, y to the front, z to the head; the body is the size of a newborn's. A shape is
given as the depth of every point in it, so that a scanner can blur its edge over a voxel. The
organs are hard to find: the spleen and the muscles share the liver's signal, the bowel the
kidneys', the aorta the vessel's, and the vessel is about three voxels thick.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.spatial import KDTree

LABELS = {0: "background", 1: "liver", 2: "kidneys", 3: "vessel"}
TEXTURE_MM = (1.0, 2.2, 5.0)  # correlation lengths of the textures, fine to coarse

Floats = npt.NDArray[np.float32]  # one value per point; points are (3, *shape)
Real = float | int  # to a run-time type checker an int is no float
Vector = tuple[Real, Real, Real]


@dataclass(frozen=True)
class Tissue:
    """One structure, painted over the earlier ones.

    Attributes:
        depth_mm: how deep each voxel lies in it, negative outside.
        signal: the signal in MR, 1 being that of fat.
        label: one of `LABELS`.
        mottle: standard deviation of its texture, as a share of the signal.
        texture: index into `TEXTURE_MM`.
    """

    depth_mm: Floats
    signal: float | Floats
    label: int = 0
    mottle: float = 0.05
    texture: int = 1


def tissues(points: Floats, rng: np.random.Generator) -> list[Tissue]:
    """Draw a new patient; return its structures in the order of painting.

    Args:
        points: (3, *shape), in mm from the body's centre.
        rng: random numbers.
    """
    return Patient(warp(points, rng), rng).tissues()


class Patient:
    """The shapes of one body; every call draws a new variation.

    Args:
        points: the points at which the shapes are evaluated, `(3, *shape)`, mm.
        rng: random numbers.
    """

    def __init__(self, points: Floats, rng: np.random.Generator):
        self.points = points
        self.rng = rng

    def tissues(self) -> list[Tissue]:
        """Return all structures of the body in the order of painting."""
        liver = self.signal(0.52)
        kidney = self.signal(0.66)
        vessel = self.signal(1.2)
        body = self.blob((0, 0, 0), (54, 43, 105))
        spleen = union(self.blob((-31, -6, 18), (11, 15, 17)), self.blob((-28, 3, 26), (9, 10, 10)))
        return [
            Tissue(body, self.signal(1.0), mottle=0.06, texture=2),
            Tissue(body - self.rng.uniform(3, 6), liver, texture=0),  # muscle
            Tissue(body - self.rng.uniform(9, 11), self.signal(0.86), mottle=0.08, texture=2),
            self.spine(),
            Tissue(self.aorta(), vessel),
            *self.bowel(kidney),
            Tissue(spleen, liver),
            Tissue(self.liver(), liver, label=1, mottle=0.07),
            Tissue(self.gall_bladder(), self.signal(0.3)),
            *self.kidneys(kidney),
            Tissue(self.vessel(), vessel, label=3, texture=0),
        ]

    def signal(self, mean: float) -> float:
        """Draw a tissue's signal in this patient."""
        return mean + self.rng.uniform(-0.03, 0.03)

    def blob(self, centre_mm: Vector, radii_mm: Vector) -> Floats:
        """Return the depth in an ellipsoid, which is exact at its surface."""
        centre = self.rng.uniform(-2, 2, 3) + centre_mm
        radii = self.rng.uniform(0.9, 1.1, 3) * radii_mm
        scaled = (self.points - column(centre)) / column(radii)
        level = np.sqrt(np.square(scaled).sum(0)) + 1e-6
        slope = np.sqrt(np.square(scaled / column(radii)).sum(0)) + 1e-6
        return level * (1 - level) / slope

    def tube(self, through_mm: list[Vector], radius_mm: float) -> Floats:
        """Return the depth in a round tube along the smooth curve through some points."""
        steps = np.linspace(0, 1, 160)
        curve = CubicSpline(np.linspace(0, 1, len(through_mm)), np.array(through_mm))(steps)
        reach_mm = radius_mm + 4  # farther out only the sign matters
        flat = self.points.reshape(3, -1).T
        distances = KDTree(curve).query(flat, distance_upper_bound=reach_mm)[0]
        depth_mm = radius_mm - np.minimum(distances, reach_mm)
        return depth_mm.reshape(self.points.shape[1:]).astype(np.float32)

    def aorta(self) -> Floats:
        """Return the depth in a thick vessel in front of the spine."""
        return self.tube([(-6, -11, -80), (-5, -12, 0), (-6, -10, 80)], 5.5)

    def gall_bladder(self) -> Floats:
        """Return the depth in a small ellipsoid at the liver's edge."""
        return self.blob((21, 18, -6), (5, 6, 9))

    def spine(self) -> Tissue:
        """Return a column of vertebrae with a darker disc every 16 mm."""
        disc = 0.5 + 0.5 * np.tanh(4 * np.sin(self.points[2] / 2.6) - 2)
        depth_mm = 10 - np.hypot(self.points[0], self.points[1] + 25)
        return Tissue(depth_mm, self.signal(0.66) - np.float32(0.3) * disc, mottle=0.1)

    def bowel(self, kidney: float) -> list[Tissue]:
        """Return bowel loops with about the kidneys' signal, some with gas."""
        loops: list[Tissue] = []
        for number in range(6):
            centre = self.rng.uniform((-34, -4, -50), (30, 24, 30))
            radii = self.rng.uniform(5, 12, 3)
            loop = self.blob(tuple(centre), tuple(radii))
            signal = kidney + self.rng.uniform(-0.1, 0.1) * (number % 2)
            loops.append(Tissue(loop, signal, mottle=0.08))
            if number % 3 == 0:
                front = self.points[1] - np.float32(centre[1])  # gas rises to the front
                loops.append(Tissue(np.minimum(loop - 2, front), 0.03))
        return loops

    def liver(self) -> Floats:
        """Return the depth in a large right lobe, a flat left one and a lower tip."""
        right = self.blob((20, 4, 18), (22, 24, 25))
        left = self.blob((-6, 14, 22), (21, 12, 13))
        return union(union(right, left), self.blob((29, 1, -8), (10, 14, 16)))

    def kidneys(self, cortex: float) -> list[Tissue]:
        """Return two beans, hollow towards the spine, each with a darker medulla."""
        painted: list[Tissue] = []
        for side in (-1, 1):
            bean = self.blob((25 * side, -17, -10 + 3 * side), (11, 10, 19))
            bean = -union(-bean, self.blob((14 * side, -15, -10 + 3 * side), (6, 5, 7)))
            painted.append(Tissue(bean, cortex, label=2))
            painted.append(Tissue(bean - 4, cortex - 0.1, label=2, texture=0))
        return painted

    def vessel(self) -> Floats:
        """Return the depth in a thin trunk with one branch to the liver and one to the spleen."""
        bend = self.rng.uniform(-4, 4, (3, 2))
        fork = (6 + bend[2, 0], 2 + bend[2, 1], self.rng.uniform(-10, -4))
        start = (4 + bend[0, 0], bend[0, 1], -55.0)
        middle = (11 + bend[1, 0], 6 + bend[1, 1], -30.0)
        radius = self.rng.uniform(3.0, 3.6)
        right = self.tube([fork, (14, 5, 2), (20, 3, 14), (31, 8, 24)], radius - 0.2)
        left = self.tube([fork, (-3, 6, 0), (-14, 1, 8), (-25, -3, 14)], radius - 0.2)
        trunk = self.tube([start, middle, fork], radius)
        return union(trunk, union(right, left, 1.0), 1.0)


def warp(points: Floats, rng: np.random.Generator) -> Floats:
    """Move points by a smooth field of a few mm, so that no two patients have the same shapes."""
    moved = points.copy()
    for _ in range(5):
        shift_mm = rng.normal(0, 1.2, 3)
        moved += column(shift_mm) * np.sin(wave(points, rng, 45.0, 100.0))
    return moved


def wave(points: Floats, rng: np.random.Generator, shortest_mm: float, longest_mm: float) -> Floats:
    """Draw the phase, in radians, of a plane wave of random direction, wavelength and offset."""
    direction = rng.standard_normal(3)
    direction *= 2 * np.pi / rng.uniform(shortest_mm, longest_mm) / np.linalg.norm(direction)
    phase = np.tensordot(direction.astype(np.float32), points, axes=1)
    return phase + np.float32(rng.uniform(0, 2 * np.pi))


def column(vector: npt.NDArray[np.float64]) -> Floats:
    """Return a vector (3,) as (3, 1, 1, 1), to be broadcast over points."""
    return vector.astype(np.float32)[:, None, None, None]


def union(first: Floats, second: Floats, blend_mm: float = 3.0) -> Floats:
    """Return the depth in either of two shapes, their crease rounded over `blend_mm`."""
    overlap = np.maximum(np.float32(blend_mm) - np.abs(first - second), np.float32(0))
    return np.maximum(first, second) + overlap * overlap * np.float32(0.25 / blend_mm)
