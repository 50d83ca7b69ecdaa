"""The study's statistics against planted truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe import intervals
from segpipe.intervals import interval
from segpipe.study import statistics
from segpipe.study.statistics import compare, holm, warn_of_few

CASES, RUNS, VARIANTS = 40, 3, 3


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 600)


def simulated(rng: np.random.Generator, effect: float = 0.0) -> list[np.ndarray]:
    """Dice of cases that differ in difficulty, of two labels, with the luck of each run on top."""
    return [rng.normal(0.85 + effect, 0.02, (CASES, 2)) for _ in range(RUNS)]


def test_without_an_effect_few_comparisons_look_like_one() -> None:
    """1,000 studies of three variants that are all alike: Holm keeps the chance of any false alarm near 5 %."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(1000):
        hard = rng.normal(0, 0.05, (CASES, 1))
        reference = [hard + one for one in simulated(rng)]
        p = []
        for _ in range(VARIANTS):
            variant = hard + np.array(simulated(rng))
            p.append(statistics.wilcoxon_p(np.nanmean(variant - reference, axis=0)))
        alarms += min(holm(p)) < 0.05
    assert 0.02 <= alarms / 1000 <= 0.06


def test_a_planted_effect_is_found() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 0.05, (CASES, 1))
    found = compare(
        [hard + one for one in simulated(rng, -0.019)], [hard + one for one in simulated(rng)]
    )
    assert found.interval.mean == pytest.approx(-0.019, abs=0.006)
    assert found.interval.low < found.interval.mean < found.interval.high < 0
    assert found.p < 1e-4
    assert found.effect < -0.7
    assert (found.cases, found.runs) == (CASES, RUNS)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    found = [interval(rng.normal(0.8, 0.05, (60, 1))) for _ in range(1000)]
    assert 0.93 <= np.mean([one.low <= 0.8 <= one.high for one in found]) <= 0.97


def test_the_interval_of_skewed_scores_with_gaps_is_that_of_the_mean_over_targets() -> None:
    table = np.random.default_rng(3).beta(8, 2, (50, 2))
    table[10:, 1] = np.nan
    found = interval(table)
    assert found.mean == pytest.approx((table[:, 0].mean() + table[:10, 1].mean()) / 2)
    assert found.low < found.mean < found.high


@pytest.mark.parametrize(
    ("cases", "runs", "known"), [(1, 1, False), (40, 1, False), (5, 3, False), (6, 2, True)]
)
def test_no_p_where_cases_or_runs_are_too_few(cases: int, runs: int, known: bool) -> None:
    rng = np.random.default_rng(4)
    variant = [rng.normal(size=(cases, 1)) for _ in range(runs)]
    reference = [rng.normal(size=(cases, 1)) for _ in range(runs)]
    found = compare(variant, reference)
    assert np.isfinite(found.p) == known
    assert bool(warn_of_few(cases, runs))
    assert np.isfinite(found.interval.low) == (cases > 1)
    assert not warn_of_few(40, 3)


def test_what_is_alike_has_no_difference() -> None:
    same = [np.full((10, 1), 0.9)] * 2
    found = compare(same, same)
    assert (found.interval.mean, found.interval.low, found.interval.high) == (0, 0, 0)
    assert (found.p, found.effect) == (1, 0)


def test_folds_are_paired_where_they_were_validated() -> None:
    """Each case in one fold only: NaN elsewhere, and its difference is that of its own fold."""
    one, other = np.full((8, 1), np.nan), np.full((8, 1), np.nan)
    one[:4], other[4:] = 0.8, 0.6
    found = compare([one + 0.1, other + 0.1], [one, other])
    assert found.interval.mean == pytest.approx(0.1)
    assert found.cases == 8


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=8))
def test_holm_only_raises_keeps_order_and_leaves_gaps(p: list[float]) -> None:
    corrected = holm(p)
    assert [np.isnan(one) for one in corrected] == [np.isnan(one) for one in p]
    pairs = sorted((one, more) for one, more in zip(p, corrected, strict=True) if not np.isnan(one))
    assert all(one <= more <= 1 for one, more in pairs)
    assert [more for _, more in pairs] == sorted(more for _, more in pairs)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
