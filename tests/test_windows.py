"""Volume -> windows -> volume."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map
from monai.inferers.utils import sliding_window_inference

from segpipe.prediction.empty_windows import SkipEmptyWindows
from segpipe.windows import (
    Windowing,
    from_network,
    gaussian,
    predict_slabs,
    slab_axis,
    softmax,
    to_network,
)

sizes = st.tuples(*[st.integers(1, 20)] * 3)


def predict_volume(
    network, volume, patch, axis, overlap, batch_size, exclusive=True
) -> torch.Tensor:
    windowing = Windowing(patch, axis, overlap, softmax if exclusive else torch.sigmoid)
    slabs = predict_slabs(network, volume, windowing, batch_size)
    return torch.cat(list(slabs), slab_axis(volume.shape[1:], axis) + 1)


def oracle(patches: torch.Tensor) -> torch.Tensor:
    """Logits that say of each voxel what its image says."""
    return torch.cat([-patches, patches], 1)


@settings(max_examples=40, deadline=None)
@given(
    size=sizes,
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    axis=st.sampled_from([None, 0, 1, 2]),
    seed=st.integers(0, 99),
)
def test_stitching_the_windows_of_an_oracle_gives_the_volume(size, overlap, axis, seed) -> None:
    volume = torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))
    patch = tuple(1 if place == axis else 8 for place in range(3))
    stitched = predict_volume(oracle, volume, patch, axis, overlap, 3)
    assert stitched.shape == (2, *size)
    torch.testing.assert_close(
        stitched, torch.softmax(oracle(volume[None])[0], 0), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_network_never_sees_the_slice_axis(axis: int) -> None:
    seen: list[tuple[int, ...]] = []

    def network(patches: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(patches.shape[1:]))
        return oracle(patches)

    patch = tuple(1 if place == axis else 8 for place in range(3))
    predict_volume(network, torch.randn(1, 9, 10, 11), patch, axis, 0.5, 4)
    assert set(seen) == {(1, 8, 8)}


def test_from_network_undoes_to_network() -> None:
    for axis in range(3):
        shape = [2, 3, 5, 6, 7]
        shape[axis + 2] = 1
        patches = torch.randn(shape)
        assert torch.equal(from_network(to_network(patches, axis), axis), patches)


@settings(max_examples=40, deadline=None)
@given(
    size=sizes,
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.75]),
    batch_size=st.integers(1, 7),
    exclusive=st.booleans(),
)
def test_slabs_are_what_monai_makes_of_the_whole_volume(
    size, overlap, batch_size, exclusive
) -> None:
    """A network whose answer depends on where in the window a voxel lies."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(2, 3, 3, padding=1), torch.nn.GELU(), torch.nn.Conv3d(3, 3, 3, padding=1)
    )
    volume, patch = torch.randn(2, *size), (6, 8, 5)
    with torch.no_grad():
        whole = sliding_window_inference(
            volume[None], patch, batch_size, network, overlap, mode="gaussian"
        )[0]
        found = predict_volume(network, volume, patch, None, overlap, batch_size, exclusive)
    torch.testing.assert_close(
        found, torch.softmax(whole, 0) if exclusive else torch.sigmoid(whole), atol=1e-5, rtol=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(
    size=sizes,
    overlap=st.sampled_from([0.0, 0.3, 0.5]),
    batch_size=st.integers(1, 7),
    exclusive=st.booleans(),
)
def test_skipped_windows_are_what_monai_makes_of_certain_background(
    size, overlap, batch_size, exclusive
) -> None:
    """A body of a few voxels in a corner: however many windows go at once, those without any of it are background."""
    volume, patch = torch.randn(2, *size), (6, 8, 5)
    volume[1] = 0
    volume[1, : size[0] // 3, : size[1] // 3 + 1] = 1
    asked = SkipEmptyWindows(
        lambda patches: torch.cat([patches, -patches, 2 * patches], 1), 3, exclusive
    )

    def certain(patches: torch.Tensor) -> torch.Tensor:
        logits = torch.cat([patches[:, :1], -patches[:, :1], 2 * patches[:, :1]], 1)
        sure = torch.full_like(logits, -20 * (not exclusive))
        sure[:, 0] = 20 if exclusive else -20
        return torch.where(
            patches[:, 1:].flatten(1).any(1)[:, None, None, None, None], logits, sure
        )

    whole = sliding_window_inference(
        volume[None], patch, 1, certain, overlap, mode="gaussian", padding_mode="constant"
    )[0]
    found = predict_volume(asked, volume, patch, None, overlap, batch_size, exclusive)
    torch.testing.assert_close(
        found, torch.softmax(whole, 0) if exclusive else torch.sigmoid(whole), atol=1e-5, rtol=1e-4
    )
    assert found.shape == (3, *size)


def test_a_slab_is_given_as_soon_as_no_window_reaches_into_it() -> None:
    computed: list[int] = []

    def network(patches: torch.Tensor) -> torch.Tensor:
        computed.append(len(patches))
        return oracle(patches)

    windowing = Windowing((8, 8, 8), None, 0.5)
    slabs = predict_slabs(network, torch.randn(1, 64, 8, 8), windowing, 1)
    assert next(slabs).shape == (2, 4, 8, 8)
    assert sum(computed) == 1
    assert next(slabs).shape == (2, 4, 8, 8)
    assert sum(computed) == 2
    assert sum(slab.shape[1] for slab in slabs) == 64 - 8


@pytest.mark.parametrize("patch", [(16, 12, 1), (7, 24, 9)])
def test_windows_are_weighted_as_monai_weights_them(patch: tuple[int, int, int]) -> None:
    assert torch.allclose(gaussian(patch)[0], compute_importance_map(patch, "gaussian"), rtol=1e-5)


def test_windows_are_counted_before_they_are_computed() -> None:
    seen = []

    def network(patches: torch.Tensor) -> torch.Tensor:
        seen.append(len(patches))
        return oracle(patches)

    for size, overlap in (((20, 9, 5), 0.5), ((8, 8, 8), 0.25), ((31, 3, 17), 0.0)):
        seen.clear()
        predict_volume(network, torch.zeros(1, *size), (8, 8, 8), None, overlap, 3)
        assert sum(seen) == Windowing((8, 8, 8), None, overlap).count(size)
