"""Scores against truths that can be worked out by hand."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from segpipe.config.scoring import USUAL
from segpipe.mask_pairs import confusion_table
from segpipe.metrics import (
    Score,
    dice_per_target,
    mean_dice,
    score_case,
    summarise,
    write_scores,
)

SPACING = (1.0, 1.0, 1.0)
AB = {"a": [1], "b": [2]}
ABC = AB | {"c": [3]}


def ball(radius: float, spacing: tuple[float, float, float], shift_mm: float = 0.0) -> np.ndarray:
    size = [round(40 / mm) for mm in spacing]
    index = np.indices(size).astype(float)
    place = [(axis + 0.5) * mm - 20 for axis, mm in zip(index, spacing, strict=True)]
    return (((place[0] - shift_mm) ** 2 + place[1] ** 2 + place[2] ** 2) < radius**2).astype(
        np.uint8
    )


def one(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Score:
    (score,) = score_case("case", prediction, truth, spacing, {"organ": [1]})
    return score


def same(scores: list[Score], wanted: list[Score]) -> None:
    for score, other in zip(scores, wanted, strict=True):
        found = [score.dice, score.iou, score.hd95_mm, score.assd_mm, score.nsd]
        expected = [other.dice, other.iou, other.hd95_mm, other.assd_mm, other.nsd]
        assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_two_voxels_two_millimetres_apart() -> None:
    first, second = np.zeros((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint8)
    first[4, 4, 4] = second[5, 4, 4] = 1
    score = one(first, second, (2.0, 1.0, 1.0))
    assert (score.dice, score.iou) == (0, 0)
    assert score.hd95_mm == pytest.approx(2)
    assert score.assd_mm == pytest.approx(2)
    assert score.volume_ml == score.truth_ml == pytest.approx(0.002)


def test_a_cube_moved_by_half_its_width() -> None:
    first, second = np.zeros((20, 12, 12), np.uint8), np.zeros((20, 12, 12), np.uint8)
    first[4:8, 4:8, 4:8] = second[6:10, 4:8, 4:8] = 1
    score = one(first, second)
    assert score.dice == pytest.approx(0.5)
    assert score.iou == pytest.approx(1 / 3)
    assert score.hd95_mm == pytest.approx(2)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 2.0)])
def test_balls_one_inside_the_other(spacing: tuple[float, float, float]) -> None:
    """Every surface point of one is 3 mm from the other; voxels blur that by at most about one of them."""
    score = one(ball(9, spacing), ball(12, spacing), spacing)
    assert score.assd_mm == pytest.approx(3, abs=0.4)
    assert score.hd95_mm == pytest.approx(3, abs=max(spacing) * 0.8)
    assert score.dice == pytest.approx(2 * 9**3 / (9**3 + 12**3), abs=0.02)
    assert score.truth_ml == pytest.approx(4 / 3 * math.pi * 12**3 / 1000, rel=0.02)
    assert score.nsd < 0.05
    assert one(ball(11.4, spacing), ball(12, spacing), spacing).nsd > 0.95


def test_equal_masks_are_perfect() -> None:
    score = one(ball(10, (1.0, 1.0, 1.0)), ball(10, (1.0, 1.0, 1.0)))
    assert (score.dice, score.iou, score.hd95_mm, score.assd_mm, score.nsd) == (1, 1, 0, 0, 1)


def test_masks_at_the_edge_of_the_image_have_a_surface_there() -> None:
    full, half = np.ones((6, 6, 6), np.uint8), np.ones((6, 6, 6), np.uint8)
    half[3:] = 0
    assert one(full, full).nsd == 1
    assert one(half, full).hd95_mm == pytest.approx(3)


def test_one_slice_is_two_dimensional() -> None:
    first, second = np.zeros((20, 20, 1), np.uint8), np.zeros((20, 20, 1), np.uint8)
    first[5:10, 5:10], second[7:12, 5:10] = 1, 1
    score = one(first, second, (0.5, 1.0, 30.0))
    assert score.hd95_mm == pytest.approx(1.0)
    assert score.nsd == pytest.approx(1.0)
    assert one(first, second, (2.0, 1.0, 30.0)).nsd < 0.8


def test_a_miss_and_a_false_alarm_are_the_worst_there_is() -> None:
    empty, full = np.zeros((10, 10, 10), np.uint8), ball(9, (4.0, 4.0, 4.0))
    for prediction, truth in ((empty, full), (full, empty)):
        score = one(prediction, truth, (1.0, 2.0, 2.0))
        assert (score.dice, score.iou, score.nsd) == (0, 0, 0)
        assert score.hd95_mm == score.assd_mm == pytest.approx(30)
    both = one(empty, empty)
    assert all(
        math.isnan(value) for value in (both.dice, both.iou, both.hd95_mm, both.assd_mm, both.nsd)
    )


def test_the_summary_counts_misses_and_leaves_out_what_is_nowhere() -> None:
    empty, full = np.zeros((10, 10, 10), np.uint8), ball(9, (4.0, 4.0, 4.0))
    pairs = [(full, full), (empty, full), (full, empty), (empty, empty)]
    scores = [
        score
        for number, (p, t) in enumerate(pairs)
        for score in score_case(str(number), p, t, SPACING, AB)
    ]
    a, b, mean = summarise(scores)
    assert (a.dice, a.misses, a.false_alarms) == (pytest.approx(1 / 3), 1, 1)
    assert math.isnan(b.dice)
    assert (mean.label, mean.dice, mean.misses) == ("mean", a.dice, 1)


def distances_by_hand(first: np.ndarray, second: np.ndarray, mm: np.ndarray) -> tuple[float, float]:
    """HD95 and mean surface distance from distance maps: voxels with a neighbour outside are the surface."""
    surfaces = [mask & ~binary_erosion(mask) for mask in (first, second)]
    there, back = (
        distance_transform_edt(~to, sampling=mm)[of] for of, to in (surfaces, surfaces[::-1])
    )
    return max(np.quantile(there, 0.95), np.quantile(back, 0.95)), float(
        np.concatenate([there, back]).mean()
    )


@pytest.mark.parametrize("shape", [(13, 11, 9), (13, 11, 1), (1, 11, 13)])
@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_a_distance_map(shape: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (
        gaussian_filter(rng.normal(size=shape), 1.5) > 0 for _ in range(2)
    )  # with an inside
    spacing = (0.7, 1.3, 2.9)
    flat = [axis for axis in range(3) if shape[axis] == 1]
    hd95, assd = distances_by_hand(first.squeeze(), second.squeeze(), np.delete(spacing, flat))
    score = one(first.astype(np.int16), second.astype(np.int16), spacing)
    assert score.hd95_mm == pytest.approx(hd95, rel=1e-5)
    assert score.assd_mm == pytest.approx(assd, rel=1e-5)


def test_neither_the_order_of_masks_nor_of_axes_nor_of_labels_matters() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 3, (7, 6, 5)) for _ in range(2))
    spacing = np.array([1.0, 2.0, 0.5])
    expected = score_case("case", first, second, spacing, AB)
    assert len({score.dice for score in expected}) == 2

    swapped = score_case("case", second, first, spacing, AB)
    same(swapped, expected)
    assert [score.truth_ml for score in swapped] == [score.volume_ml for score in expected]
    for axes in ((1, 2, 0), (2, 1, 0)):
        same(
            score_case(
                "case",
                first.transpose(axes)[::-1],
                second.transpose(axes)[::-1],
                spacing[[*axes]],
                AB,
            ),
            expected,
        )
    other = np.array([0, 2, 1])
    same(
        score_case("case", other[first], other[second], spacing, {"b": [1], "a": [2]}),
        expected[::-1],
    )


def test_where_a_mask_lies_in_a_large_image_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.integers(0, 2, (5, 5, 5)) for _ in range(2))
    alone = one(first, second)
    moved = one(
        np.pad(first, ((0, 30), (20, 0), (7, 9))), np.pad(second, ((0, 30), (20, 0), (7, 9)))
    )
    assert moved == alone


@pytest.mark.parametrize("shape", [(9, 1, 1), (1, 9, 1), (1, 1, 9)])
def test_a_row_of_voxels_has_distances(shape: tuple[int, int, int]) -> None:
    first, second = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    first.flat[1] = second.flat[4] = 1
    assert one(first, second, (2.0, 2.0, 2.0)).hd95_mm == pytest.approx(6)


def test_the_tolerance_of_the_nsd_is_in_millimetres() -> None:
    first, second = np.zeros((20, 8, 8), np.uint8), np.zeros((20, 8, 8), np.uint8)
    first[4:8], second[6:10] = 1, 1  # slabs moved by 2 voxels of 1.5 mm
    nsd = []
    for mm in (2.9, 3.0):
        scoring = USUAL.model_copy(update={"nsd_tolerance_mm": mm})
        (score,) = score_case("case", first, second, (1.5, 1.0, 1.0), {"x": [1]}, scoring)
        nsd.append(score.nsd)
    assert nsd[0] < 0.9
    assert nsd[1] == 1


def test_what_cannot_be_compared_is_refused_with_the_numbers() -> None:
    masks = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    masks[0][0], masks[1][0] = 3, 1  # 3 beside 1 in a table of 3 labels would be read as 0 beside 2
    with pytest.raises(ValueError, match=r"0\.\.2; the prediction has 3\.\.3"):
        dice_per_target(*masks, AB)
    with pytest.raises(ValueError, match=r"0\.\.2; the truth has 3\.\.3"):
        dice_per_target(*masks[::-1], AB)
    with pytest.raises(ValueError, match=r"\(4, 4, 4\).*\(2, 8, 4\)"):
        confusion_table(
            masks[0], masks[1].reshape(2, 8, 4), ABC
        )  # above it, jaxtyping's hook would be the first to see this


def test_a_label_counts_as_much_as_one_that_more_cases_have() -> None:
    cases = np.array([[0.9, 0.5], [0.7, np.nan], [0.8, np.nan]])
    assert mean_dice(cases) == pytest.approx([0.8, 0.5])
    scores = [
        Score(str(case), label, {"dice": dice}, 0.0, 0.0)
        for case, row in enumerate(cases)
        for label, dice in zip("ab", row, strict=True)
    ]
    assert summarise(scores)[-1].dice == pytest.approx(0.65)


labels = st.lists(st.integers(0, 3), min_size=24, max_size=24).map(
    lambda values: np.array(values).reshape(4, 3, 2)
)


@given(prediction=labels, truth=labels)
@settings(deadline=None)
def test_dice_is_the_textbooks(prediction: np.ndarray, truth: np.ndarray) -> None:
    dice = dice_per_target(prediction, truth, ABC)
    for label in (1, 2, 3):
        found, real = prediction == label, truth == label
        if found.any() or real.any():
            assert dice[label - 1] == pytest.approx(
                2 * (found & real).sum() / (found.sum() + real.sum())
            )
        else:
            assert math.isnan(dice[label - 1])
    assert np.array_equal(dice, dice_per_target(truth, prediction, ABC), equal_nan=True)
    assert ((dice >= 0) & (dice <= 1) | np.isnan(dice)).all()
    itself = dice_per_target(truth, truth, ABC)
    assert (itself[~np.isnan(itself)] == 1).all()
    assert np.array_equal(
        dice,
        dice_per_target(np.asfortranarray(prediction), truth.astype(np.uint8), ABC),
        equal_nan=True,
    )


@given(prediction=labels, truth=labels)
@settings(deadline=None, max_examples=30)
def test_a_region_is_scored_as_the_label_that_its_union_would_be(
    prediction: np.ndarray, truth: np.ndarray
) -> None:
    regions = {"whole": [1, 2, 3], "core": [1, 3], "inner": [3]}
    found = score_case("case", prediction, truth, (1.0, 2.0, 0.5), regions)
    for name, score in zip(regions, found, strict=True):
        masks = (np.isin(one, regions[name]).astype(np.uint8) for one in (prediction, truth))
        (alone,) = score_case("case", *masks, (1.0, 2.0, 0.5), {name: [1]})
        same([score], [alone])
    assert np.array_equal(
        dice_per_target(prediction, truth, regions), [score.dice for score in found], equal_nan=True
    )


def test_scores_are_written_whole(tmp_path: Path) -> None:
    score = one(ball(9, (1.0, 1.0, 1.0)), ball(10, (1.0, 1.0, 1.0)))
    write_scores([score], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == "case"
    assert float(row["dice"]) == score.dice
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
