"""What is taken away from a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label as components

from segpipe.errors import ConfigError
from segpipe.prediction.postprocessing import clean, label_indices

masks = arrays(np.uint8, (6, 5, 4), elements=st.sampled_from([0, 0, 0, 1, 2]))


def parts_of(mask: np.ndarray, number: int) -> list[int]:
    parts, count = components(mask == number, np.ones((3, 3, 3)))  # type: ignore[misc]
    return sorted((int((parts == part).sum()) for part in range(1, count + 1)), reverse=True)


@settings(deadline=None)
@given(mask=masks)
def test_only_the_largest_part_stays(mask: np.ndarray) -> None:
    cleaned = clean(mask, 1.0, keep_largest=[1])
    assert parts_of(cleaned, 1) == parts_of(mask, 1)[:1]
    assert np.array_equal(cleaned == 2, mask == 2)
    assert np.array_equal(cleaned[cleaned > 0], mask[cleaned > 0])


@settings(deadline=None)
@given(mask=masks, least=st.integers(0, 5))
def test_parts_of_enough_volume_stay(mask: np.ndarray, least: int) -> None:
    before = mask.copy()
    cleaned = clean(mask, 0.5, min_volume_ml={2: least * 0.5})
    assert parts_of(cleaned, 2) == [voxels for voxels in parts_of(mask, 2) if voxels >= least]
    assert np.array_equal(cleaned == 1, mask == 1)
    assert np.array_equal(mask, before)


@given(mask=masks)
def test_some_labels_alone_stay(mask: np.ndarray) -> None:
    assert np.array_equal(clean(mask, 1.0, keep=[2]), np.where(mask == 2, 2, 0))
    assert np.array_equal(clean(mask, 1.0), mask)


def test_a_label_that_is_not_known_is_named() -> None:
    assert label_indices(["vessel"], {"background": 0, "liver": 1, "vessel": 4}, "labels") == [2]
    with pytest.raises(
        ConfigError, match="keep_largest: spleen is no label of the network; it knows liver"
    ):
        label_indices(["spleen"], {"background": 0, "liver": 1}, "keep_largest")
