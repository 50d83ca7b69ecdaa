"""Metrics that are measured when they are chosen, each against another way to compute it."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses.cldice import soft_skel
from scipy.ndimage import gaussian_filter, label

from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.scoring import USUAL, Scoring
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.files import read_table
from segpipe.metrics import (
    Score,
    check_scoring,
    metrics_of,
    score_case,
    summarise,
    tolerance_text,
    write_scores,
)
from segpipe.metrics.tubes import centre_line
from segpipe.registry import METRICS

ALL = USUAL.model_copy(update={"metrics": METRICS.names()})
SPACING = (1.0, 1.0, 1.0)


def scored(prediction: np.ndarray, truth: np.ndarray, **changed: object) -> Score:
    """Return all metrics of one target."""
    scoring = ALL.model_copy(update=changed)
    masks = prediction.astype(np.uint8), truth.astype(np.uint8)
    (score,) = score_case("case", *masks, SPACING, {"lesion": [1]}, scoring)
    return score


def blobs(seed: int, shape: tuple[int, ...], level: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal(shape), 1.0)
    return smooth > level * smooth.std() * 3


def pair_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks with objects that match, that are missed, torn or merged."""
    truth = blobs(seed, (12, 11, 9))
    other = blobs(seed + 1000, (12, 11, 9))
    shift = np.roll(truth, seed % 3, axis=seed % 2)
    return shift ^ (other & (np.random.default_rng(seed).random(truth.shape) < 0.5)), truth


def by_trying_all(prediction: np.ndarray, truth: np.ndarray, least: float) -> tuple[float, ...]:
    """Return F1, mean Dice of objects, PQ and false ones, of the best of all matchings."""
    touching = np.ones((3,) * truth.ndim)
    parts, number = label(prediction, touching)  # type: ignore[misc]
    true_parts, true_number = label(truth, touching)  # type: ignore[misc]
    pairs = []
    for first, second in itertools.product(range(1, number + 1), range(1, true_number + 1)):
        common = ((parts == first) & (true_parts == second)).sum()
        either = ((parts == first) | (true_parts == second)).sum()
        if common and common / either >= least:
            pairs.append((first, second, common / either))
    best = _best(pairs)
    matched = len(best)
    f1 = matched / (matched + (number - matched) / 2 + (true_number - matched) / 2)
    dice = sum(2 * iou / (1 + iou) for iou in best) / (number + true_number - matched)
    quality = sum(best) / (matched + (number - matched) / 2 + (true_number - matched) / 2)
    return f1, dice, quality, number - matched


def _best(pairs: list[tuple[int, int, float]]) -> list[float]:
    """Return the IoUs of the matching with the largest sum, found by trying every one."""
    if not pairs:
        return []
    (first, second, iou), *others = pairs
    without = _best(others)
    free = [pair for pair in others if pair[0] != first and pair[1] != second]
    taken = [iou, *_best(free)]
    return max(without, taken, key=sum)


@pytest.mark.parametrize("least", [0.1, 0.5])
@pytest.mark.parametrize("seed", range(12))
def test_objects_are_matched_in_the_best_of_all_ways(seed: int, least: float) -> None:
    prediction, truth = pair_of(seed)
    score = scored(prediction, truth, object_iou=least)
    found = (score.object_f1, score.object_dice, score.object_pq, score.false_objects)
    assert found == pytest.approx(by_trying_all(prediction, truth, least))


def test_a_pair_that_is_less_alike_is_taken_where_more_objects_match_by_it() -> None:
    """The first object overlaps both true ones, the second only the first of them."""
    prediction = np.zeros((30, 3), bool)
    truth = np.zeros((30, 3), bool)
    truth[2:10] = True
    truth[11:17] = True
    prediction[7:16] = True
    prediction[1:6] = True
    both = scored(prediction[..., None], truth[..., None], object_iou=0.1)
    assert (both.object_recall, both.object_precision) == (1, 1)
    strict = scored(prediction[..., None], truth[..., None], object_iou=0.5)
    assert (strict.object_recall, strict.object_precision) == (0.5, 0.5)
    assert strict.object_f1 == 0.5


def test_objects_that_touch_by_a_corner_are_one() -> None:
    truth = np.zeros((6, 6, 6), bool)
    truth[1:3, 1:3, 1:3] = truth[3:5, 3:5, 3:5] = True
    prediction = truth.copy()
    prediction[2, 2, 2] = False  # torn: the larger part matches, the other is a false one
    score = scored(prediction, truth)
    assert (score.object_recall, score.object_precision) == (1, 0.5)
    assert score.false_objects == 1


def test_a_noisy_mask_of_very_many_objects_is_scored() -> None:
    """A table of all pairs of them would take 5 GiB."""
    truth = np.zeros((160, 160, 8), bool)
    truth[::2, ::2, ::2] = True
    score = scored(truth, truth, metrics=["object_f1", "object_pq"])
    assert (score.object_f1, score.object_pq) == (1, 1)


def test_false_objects_are_counted_in_scans_without_any_lesion() -> None:
    """Means of all other metrics leave such scans out, and misses have their worst value."""
    empty = np.zeros((7, 7, 7), bool)
    two = empty.copy()
    two[1, 1, 1] = two[5, 5, 5] = True
    scores = [scored(two, two), scored(two, empty), scored(empty, two), scored(empty, empty)]
    assert [score.false_objects for score in scores] == [0, 2, 0, 0]
    assert [score.object_f1 for score in scores[:3]] == [1, 0, 0]
    assert [score.cldice for score in scores[:3]] == [1, 0, 0]
    assert [score.volume_error for score in scores[:3]] == [0, 100, 100]
    assert math.isnan(scores[3].object_f1)
    line = summarise(scores)[0]
    assert (line.false_objects, line.object_f1) == (0.5, pytest.approx(1 / 3))


@pytest.mark.parametrize("shape", [(24, 20), (14, 13, 12)])
@pytest.mark.parametrize("seed", range(6))
def test_the_centre_line_is_that_of_monai(seed: int, shape: tuple[int, ...]) -> None:
    mask = np.pad(blobs(seed, shape, 0.1), 8)
    tensor = torch.from_numpy(mask)[None, None].float()
    expected = soft_skel(tensor, iter_=8).numpy()[0, 0]
    np.testing.assert_array_equal(centre_line(mask), expected > 0)


def test_cldice_of_a_torn_vessel() -> None:
    """Two of its twelve voxels are gone: all that is found is right, 10 of 12 are found."""
    truth = np.zeros((16, 5, 5), bool)
    truth[2:14, 2, 2] = True
    torn = truth.copy()
    torn[7:9] = False
    assert scored(torn, truth).cldice == pytest.approx(2 * (10 / 12) / (1 + 10 / 12))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_swapping_the_masks_swaps_precision_and_recall(seed: int) -> None:
    prediction, truth = pair_of(seed)
    one, other = scored(prediction, truth), scored(truth, prediction)
    assert one.object_precision == pytest.approx(other.object_recall, nan_ok=True)
    for name in ("object_f1", "object_dice", "object_pq", "cldice"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True)


@pytest.mark.parametrize(("tolerance_mm", "stray"), [(0.39, 50), (1.0, 25), (1.3, 0)])
def test_what_lies_far_from_the_truth_is_stray(tolerance_mm: float, stray: float) -> None:
    """Of 16 voxels, 4 lie 4 mm from the truth and 4 lie 13 mm from it."""
    truth = np.zeros((30, 2, 2), bool)
    truth[2:4] = True
    prediction = truth.copy()
    prediction[7] = prediction[16] = True
    assert scored(prediction, truth, nsd_tolerance_mm=tolerance_mm).stray_volume == stray


def test_only_a_false_alarm_strays_altogether() -> None:
    empty = np.zeros((7, 7, 7), bool)
    one = empty.copy()
    one[3, 3, 3] = True
    pairs = [(one, one), (one, empty), (empty, one), (empty, empty)]
    assert [scored(*pair).stray_volume for pair in pairs] == [0, 100, 0, 0]


def test_each_label_has_its_tolerance() -> None:
    first, second = np.zeros((20, 8, 8), np.uint8), np.zeros((20, 8, 8), np.uint8)
    first[4:8], second[6:10] = 1, 1
    first[12:14], second[14:16] = 2, 2
    scoring = USUAL.model_copy(update={"nsd_tolerance_mm": {"b": 2.0}})
    targets = {"a": [1], "b": [2]}
    a, b = score_case("case", first, second, SPACING, targets, scoring)
    assert a.nsd < 0.9
    assert b.nsd == 1
    assert tolerance_text(scoring) == "2 mm (b), 1 mm (others)"


def test_what_is_not_chosen_is_not_measured_nor_shown(tmp_path: Path) -> None:
    mask = blobs(0, (8, 8, 8)).astype(np.uint8)
    scoring = USUAL.model_copy(update={"metrics": ["nsd", "cldice"]})
    scores = score_case("case", mask, mask, SPACING, {"vessel": [1]}, scoring)
    assert list(metrics_of("scores", scores)) == ["dice", "nsd", "cldice"]
    write_scores(scores, tmp_path / "scores.csv")
    (row,) = read_table(tmp_path / "scores.csv")
    assert list(row) == ["case", "label", "dice", "nsd", "cldice", "volume_ml", "truth_ml"]
    assert Score.from_values(row).values == scores[0].values
    more = USUAL.model_copy(update={"metrics": ["usual", "cldice"]})
    (all_usual,) = score_case("case", mask, mask, SPACING, {"vessel": [1]}, more)
    assert list(all_usual.values) == ["dice", "iou", "hd95_mm", "assd_mm", "nsd", "cldice"]


def test_an_unknown_metric_or_label_is_named_in_one_line() -> None:
    values = defaults("predict")
    with pytest.raises(
        ConfigError, match="metrics entry 0 is 'dise', which is none of 'dice', 'iou'"
    ):
        validate(Predict, values | {"checkpoint": "x", "metrics": ["dise"]})
    scoring = Scoring(metrics=None, nsd_tolerance_mm={"vesel": 2.0}, object_iou=0.1)
    with pytest.raises(ConfigError, match=r"nsd_tolerance_mm: vesel is none of vessel\. .*vessel"):
        check_scoring(scoring, {"vessel": [1]})
