"""Volume -> windows -> volume."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.windows import from_network, predict_volume, to_network

sizes = st.tuples(*[st.integers(1, 20)] * 3)


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
    stitched = predict_volume(oracle, volume, patch, axis, overlap, 3)  # type: ignore[arg-type]
    assert stitched.shape == (2, *size)
    torch.testing.assert_close(stitched, torch.softmax(oracle(volume[None])[0], 0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_network_never_sees_the_slice_axis(axis: int) -> None:
    seen: list[tuple[int, ...]] = []

    def network(patches: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(patches.shape[1:]))
        return oracle(patches)

    patch = tuple(1 if place == axis else 8 for place in range(3))
    predict_volume(network, torch.randn(1, 9, 10, 11), patch, axis, 0.5, 4)  # type: ignore[arg-type]
    assert set(seen) == {(1, 8, 8)}


def test_from_network_undoes_to_network() -> None:
    for axis in range(3):
        shape = [2, 3, 5, 6, 7]
        shape[axis + 2] = 1
        patches = torch.randn(shape)
        assert torch.equal(from_network(to_network(patches, axis), axis), patches)
