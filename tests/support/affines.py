"""Affines in every orientation."""

import itertools

import numpy as np
from scipy.spatial.transform import Rotation

ORIENTATIONS = [
    np.diag(np.array(signs, dtype=float))[:, list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def make_affine(
    turn: np.ndarray, spacing: tuple[float, ...], angles: tuple[float, ...]
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ turn @ np.diag(spacing)
    )
    affine[:3, 3] = (-31.5, 12.25, 100)
    return affine
