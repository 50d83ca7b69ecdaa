"""A patch is rotated, scaled and bent as MONAI would do it, in one interpolation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms.spatial.array import Affine

from segpipe.data.intensity import RandBlurd
from segpipe.data.warp import (
    BEND,
    RandWarpd,
    _position_terms,
    _positions,
    _sample_linear,
    _sample_nearest,
    _straight_axis,
)

FLAT = [0.0, 0.0, 0.0]


def seeded(warp: RandWarpd, seed: int) -> RandWarpd:
    warp.set_random_state(seed)
    return warp


def straight_axes(patch: tuple) -> list[np.ndarray]:
    return list(map(_straight_axis, patch))


def positions_in(size: tuple, matrix: np.ndarray, patch: tuple) -> torch.Tensor:
    """Where each voxel of a patch is taken from, as `grid_sample` takes it, for a batch of one."""
    terms = _position_terms(matrix, straight_axes(patch), size)
    return _positions(torch.from_numpy(terms)[None], patch)


def scan(*size: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(2, *size, generator=rng),
        "label": torch.randint(0, 200, (1, *size), generator=rng, dtype=torch.uint8),
    }


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[st.integers(4, 9)] * 3),
    st.tuples(*[st.integers(6, 12)] * 3),
    st.lists(st.floats(-1.5, 1.5), min_size=9, max_size=9),
)
def test_any_matrix_gives_what_monai_gives(patch: tuple, size: tuple, entries: list[float]) -> None:
    matrix = np.array(entries).reshape(3, 3)
    image = scan(*size)["image"]
    affine = np.eye(4)
    affine[:3, :3] = matrix
    monai = Affine(affine=affine, spatial_size=patch, padding_mode="zeros", image_only=True)
    ours = _sample_linear(image[None], positions_in(size, matrix, patch))[0]
    assert ours.shape == (2, *patch)
    assert torch.allclose(ours, torch.as_tensor(monai(image)), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.lists(st.floats(-1.5, 1.5), min_size=9, max_size=9),
)
def test_a_label_is_that_of_the_voxel_in_which_a_position_lies(
    patch: tuple, size: tuple, entries: list[float]
) -> None:
    matrix = np.array(entries).reshape(3, 3)
    axes = straight_axes(patch)
    numbered = torch.arange(1, math.prod(size) + 1, dtype=torch.int32).reshape(1, *size)
    found = _sample_nearest(numbered[None], positions_in(size, matrix, patch))[0, 0].numpy()
    assert found.shape == patch
    positions = np.einsum("ij,j...->i...", matrix, np.stack(np.meshgrid(*axes, indexing="ij")))
    positions += (np.array(size)[:, None, None, None] - 1) / 2
    # between two voxels it may be either
    edge = np.abs((positions + 0.5) - np.round(positions + 0.5)).min(0) < 1e-3
    voxels = np.round(positions).astype(int)
    inside = np.all((voxels >= 0) & (voxels < np.array(size)[:, None, None, None]), 0)
    assert not found[~inside & ~edge].any()
    expected = np.ravel_multi_index(tuple(voxels[:, inside]), size) + 1
    assert np.array_equal(found[inside][~edge[inside]], expected[~edge[inside]])


@pytest.mark.parametrize("size", [(8, 10, 11), (8, 8, 8)])
def test_a_rotation_by_nothing_is_the_centre(size: tuple[int, int, int]) -> None:
    patch = (6, 4, 5)
    cut = scan(*size)
    centre = RandWarpd(patch, 0.0, FLAT, FLAT, 0.0, [])(cut)
    rotated = RandWarpd(patch, 1.0, FLAT, FLAT, 0.0, [])(cut)
    if size == (8, 10, 11):  # else the centre lies between two voxels
        assert torch.equal(rotated["label"], centre["label"])
        assert torch.allclose(rotated["image"], centre["image"], atol=1e-5)
    starts = (np.array(size) - patch) // 2
    x, y, z = (slice(start, start + edge) for start, edge in zip(starts, patch, strict=True))
    assert torch.equal(centre["image"], cut["image"][:, x, y, z])
    assert centre["label"].shape == rotated["label"].shape == (1, 6, 4, 5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_moves_every_voxel_to_another(axis: int) -> None:
    cut = scan(8, 8, 8)
    angles = [0.0, 0.0, 0.0]
    angles[axis] = math.pi / 2
    warp = RandWarpd((8, 8, 8), 1.0, angles, FLAT, 0.0, [])
    warp.R = _Always()  # type: ignore[assignment]
    rotated = warp(cut)
    plane = [other + 1 for other in range(3) if other != axis]
    for name in ("image", "label"):
        voxels = rotated[name].float()
        left, right = (cut[name].float().rot90(turns, plane) for turns in (1, 3))
        assert torch.allclose(voxels, left, atol=1e-4) or torch.allclose(voxels, right, atol=1e-4)


class _Always:
    """Random numbers that are the largest possible."""

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)

    def uniform(self, low: float, high: float) -> float:
        return high


@pytest.mark.parametrize("voxels", [2, 5, 40])
def test_what_is_bent_keeps_its_order_and_its_middle(voxels: int) -> None:
    for seed in range(20):
        line = seeded(RandWarpd((4, 4, 4), 0.0, FLAT, FLAT, 1.0, [0]), seed)._draw_bent_axis(voxels)
        assert np.all(np.diff(line) > 0)
        assert line[0] == pytest.approx(-line[-1])
        assert abs(line[-1] / _straight_axis(voxels)[-1] - 1) <= BEND + 1e-9
        assert voxels == 2 or np.abs(line - _straight_axis(voxels)).max() > 0


def test_only_the_axes_that_may_bend_do() -> None:
    """A slice that holds its own number still holds nothing else."""
    label = (
        torch.arange(9, dtype=torch.uint8)[None, None, None, :].expand(1, 20, 20, 9).contiguous()
    )
    image = torch.arange(20.0)[None, :, None, None].expand(1, 20, 20, 9).contiguous()
    for seed in range(5):
        warp = seeded(RandWarpd((16, 16, 9), 0.0, FLAT, FLAT, 1.0, [0, 1]), seed)
        bent = warp({"image": image, "label": label})
        for z in range(9):
            assert bent["label"][..., z].unique().tolist() == [z]
        assert not torch.allclose(bent["image"], image[:, 2:18, 2:18], atol=0.05)


def test_the_number_of_threads_changes_nothing() -> None:
    cut = scan(12, 14, 10)
    threads_before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            warp = RandWarpd((12, 8, 8), 1.0, [0.5] * 3, [0.4] * 3, 1.0, [0, 1, 2])
            warped = seeded(warp, 3)(cut)
            results.append(RandBlurd(1.0, (0.5, 1.0)).set_random_state(3)(warped))
    finally:
        torch.set_num_threads(threads_before)
    for result in results[1:]:
        assert torch.equal(result["image"], results[0]["image"])
        assert torch.equal(result["label"], results[0]["label"])
