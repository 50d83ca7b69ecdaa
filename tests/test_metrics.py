"""Scores against truths that can be worked out by hand."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.metrics import Score, dice_per_label, score_case, summarise, write_scores

SPACING = (1.0, 1.0, 1.0)


def ball(radius: float, spacing: tuple[float, float, float], shift_mm: float = 0.0) -> np.ndarray:
    size = [round(40 / mm) for mm in spacing]
    index = np.indices(size).astype(float)
    place = [(axis + 0.5) * mm - 20 for axis, mm in zip(index, spacing, strict=True)]
    return (((place[0] - shift_mm) ** 2 + place[1] ** 2 + place[2] ** 2) < radius**2).astype(np.uint8)


def one(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Score:
    (score,) = score_case("case", prediction, truth, spacing, ["organ"])
    return score


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
    assert all(math.isnan(value) for value in (both.dice, both.iou, both.hd95_mm, both.assd_mm, both.nsd))


def test_the_summary_counts_misses_and_leaves_out_what_is_nowhere() -> None:
    empty, full = np.zeros((10, 10, 10), np.uint8), ball(9, (4.0, 4.0, 4.0))
    pairs = [(full, full), (empty, full), (full, empty), (empty, empty)]
    scores = [
        score for number, (p, t) in enumerate(pairs) for score in score_case(str(number), p, t, SPACING, ["a", "b"])
    ]
    a, b, mean = summarise(scores)
    assert (a.dice, a.misses, a.false_alarms) == (pytest.approx(1 / 3), 1, 1)
    assert math.isnan(b.dice)
    assert (mean.label, mean.dice, mean.misses) == ("mean", a.dice, 1)


labels = st.lists(st.integers(0, 3), min_size=24, max_size=24).map(lambda values: np.array(values).reshape(4, 3, 2))


@given(prediction=labels, truth=labels)
def test_dice_is_the_textbooks(prediction: np.ndarray, truth: np.ndarray) -> None:
    dice = dice_per_label(prediction, truth, 4)
    for label in (1, 2, 3):
        found, real = prediction == label, truth == label
        if found.any() or real.any():
            assert dice[label - 1] == pytest.approx(2 * (found & real).sum() / (found.sum() + real.sum()))
        else:
            assert math.isnan(dice[label - 1])
    assert np.array_equal(dice, dice_per_label(truth, prediction, 4), equal_nan=True)


def test_scores_are_written_whole(tmp_path: Path) -> None:
    score = one(ball(9, (1.0, 1.0, 1.0)), ball(10, (1.0, 1.0, 1.0)))
    write_scores([score], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == "case"
    assert float(row["dice"]) == score.dice
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
