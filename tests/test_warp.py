"""A patch is turned, scaled and bent as MONAI would, and in one interpolation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms.spatial.array import Affine

from segpipe.data.augment import RandBlurd
from segpipe.data.warp import (
    BEND,
    RandWarpd,
    _sample_linear,
    _sample_nearest,
    _sampling_grid,
    _straight_axis,
)

FLAT = [0.0, 0.0, 0.0]


def drawn(warp: RandWarpd, seed: int) -> RandWarpd:
    warp.set_random_state(seed)
    return warp


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
    matrix, given_ = np.array(entries).reshape(3, 3), scan(*size)
    whole = np.eye(4)
    whole[:3, :3] = matrix
    theirs = Affine(affine=whole, spatial_size=patch, padding_mode="zeros", image_only=True)
    ours = _sample_linear(
        given_["image"], _sampling_grid(matrix, [_straight_axis(n) for n in patch], given_["image"])
    )
    assert ours.shape == (2, *patch)
    assert torch.allclose(ours, torch.as_tensor(theirs(given_["image"])), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.lists(st.floats(-1.5, 1.5), min_size=9, max_size=9),
)
def test_a_label_is_that_of_the_voxel_in_which_a_place_lies(
    patch: tuple, size: tuple, entries: list[float]
) -> None:
    matrix, lines = np.array(entries).reshape(3, 3), [_straight_axis(n) for n in patch]
    numbered = torch.arange(1, math.prod(size) + 1, dtype=torch.int32).reshape(1, *size)
    found = _sample_nearest(numbered, _sampling_grid(matrix, lines, numbered))[0].numpy()
    assert found.shape == patch
    places = np.einsum("ij,j...->i...", matrix, np.stack(np.meshgrid(*lines, indexing="ij")))
    places += (np.array(size)[:, None, None, None] - 1) / 2
    edge = (
        np.abs((places + 0.5) - np.round(places + 0.5)).min(0) < 1e-3
    )  # between two voxels it may be either
    voxels = np.round(places).astype(int)
    inside = np.all((voxels >= 0) & (voxels < np.array(size)[:, None, None, None]), 0)
    assert not found[~inside & ~edge].any()
    expected = np.ravel_multi_index(tuple(voxels[:, inside]), size) + 1
    assert np.array_equal(found[inside][~edge[inside]], expected[~edge[inside]])


@pytest.mark.parametrize("size", [(8, 10, 11), (8, 8, 8)])
def test_a_turn_by_nothing_is_the_middle(size: tuple[int, int, int]) -> None:
    given_ = scan(*size)
    still = RandWarpd((6, 4, 5), 0.0, FLAT, FLAT, 0.0, [])(given_)
    affine_prob = RandWarpd((6, 4, 5), 1.0, FLAT, FLAT, 0.0, [])(given_)
    if size == (8, 10, 11):  # else the middle lies between two voxels
        assert torch.equal(affine_prob["label"], still["label"])
        assert torch.allclose(affine_prob["image"], still["image"], atol=1e-5)
    first = [(a - b) // 2 for a, b in zip(size, (6, 4, 5), strict=True)]
    inside = tuple(slice(start, start + n) for start, n in zip(first, (6, 4, 5), strict=True))
    assert torch.equal(still["image"], given_["image"][:, *inside])
    assert still["label"].shape == affine_prob["label"].shape == (1, 6, 4, 5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_moves_every_voxel_to_another(axis: int) -> None:
    given_, plane = scan(8, 8, 8), [other + 1 for other in range(3) if other != axis]
    warp = RandWarpd(
        (8, 8, 8), 1.0, [math.pi / 2 if a == axis else 0.0 for a in range(3)], FLAT, 0.0, []
    )
    warp.R = _Always()  # type: ignore[assignment]
    affine_prob = warp(given_)
    for name in ("image", "label"):
        assert any(
            torch.allclose(
                affine_prob[name].float(), given_[name].float().rot90(k, plane), atol=1e-4
            )
            for k in (1, 3)
        )


class _Always:
    """Chance that gives the largest it may."""

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)

    def uniform(self, low: float, high: float) -> float:
        return high


@pytest.mark.parametrize("voxels", [2, 5, 40])
def test_what_is_bent_keeps_its_order_and_its_middle(voxels: int) -> None:
    for seed in range(20):
        line = drawn(RandWarpd((4, 4, 4), 0.0, FLAT, FLAT, 1.0, [0]), seed)._draw_bent_axis(voxels)
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
        elastic_prob = drawn(RandWarpd((16, 16, 9), 0.0, FLAT, FLAT, 1.0, [0, 1]), seed)(
            {"image": image, "label": label}
        )
        assert all(set(elastic_prob["label"][..., z].unique().tolist()) == {z} for z in range(9))
        assert not torch.allclose(elastic_prob["image"], image[:, 2:18, 2:18], atol=0.05)


def test_the_number_of_threads_changes_nothing() -> None:
    given_, before = scan(12, 14, 10), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            warped = drawn(RandWarpd((12, 8, 8), 1.0, [0.5] * 3, [0.4] * 3, 1.0, [0, 1, 2]), 3)(
                given_
            )
            found.append(RandBlurd(1.0, (0.5, 1.0)).set_random_state(3)(warped))
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(found[0][name], other[name])
        for other in found[1:]
        for name in ("image", "label")
    )
