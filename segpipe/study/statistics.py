"""Paired comparison of variants over cases: bootstrap intervals, rank tests, Holm correction."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import DegenerateDataWarning, bootstrap, rankdata, wilcoxon

LEAST_CASES = 6  # with fewer no difference, however clear, can have p < 0.05
LEAST_RUNS = 2  # with one, p would tell two networks apart, but not two ways to build them
RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % bootstrap interval over cases around it.

    Attributes:
        mean: over the targets of the means over the cases that have them.
        low: end of the interval.
        high: likewise.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The difference of a variant to the reference, case by case.

    Attributes:
        interval: of the mean difference.
        p: of Wilcoxon's signed-rank test over the cases, two-sided; NaN where cases or runs are
            too few.
        effect: matched-pairs rank-biserial correlation (Kerby 2014): the share of the rank sum in
            favour of the variant less the share against it, from -1 to 1.
        cases: number of cases that were compared.
        runs: number of runs of each of the two, with the same seeds and folds.
    """

    interval: Interval
    p: float
    effect: float
    cases: int
    runs: int


def case_means(table: Float[np.ndarray, "cases labels"]) -> Float[np.ndarray, " known"]:
    """Return for each case the mean over its targets; cases without a target are left out."""
    known = ~np.isnan(table).all(axis=1)
    return np.nanmean(table[known], axis=1)


def interval(table: Float[np.ndarray, "cases labels"], seed: int = 0) -> Interval:
    """Return the mean and its 95 % interval, by the BCa bootstrap over the cases (Efron 1987).

    Args:
        table: one metric; NaN where a case does not have a target.
        seed: of the resampling.
    """
    table = table[:, ~np.isnan(table).all(axis=0)]
    table = table[~np.isnan(table).all(axis=1)]
    if not table.size:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(_mean(table, np.arange(len(table))))
    if len(table) < 2 or np.ptp(case_means(table)) == 0:
        end = np.nan if len(table) < 2 else mean
        return Interval(mean, end, end)
    with warnings.catch_warnings():
        # the interval of degenerate data is NaN, and is shown as not known
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (np.arange(len(table)),),
            lambda indices, axis=-1: _mean(table, indices),
            n_resamples=RESAMPLES,
            batch=500,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def _mean(table: Float[np.ndarray, "cases labels"], indices: np.ndarray) -> np.ndarray:
    """Return for each row of case indices the mean over targets of the means over those cases."""
    drawn = table[indices.astype(int)]
    if not np.isnan(table).any():
        return np.asarray(drawn.mean(axis=(-2, -1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a target that none of the drawn cases has
        return np.asarray(np.nanmean(np.nanmean(drawn, axis=-2), axis=-1))


def compare(
    variant: Sequence[Float[np.ndarray, "cases labels"]],
    reference: Sequence[Float[np.ndarray, "cases labels"]],
) -> Difference:
    """Return the paired difference of one metric, averaged over runs before cases are compared.

    Args:
        variant: a table per run; NaN where a case was not validated or does not have a target.
        reference: likewise, of the same seeds and folds in the same order.
    """
    with warnings.catch_warnings():
        # a case that no run has is NaN, and left out
        warnings.simplefilter("ignore", RuntimeWarning)
        table = np.nanmean(np.array(variant) - np.array(reference), axis=0)
    differences = case_means(table)
    enough = len(differences) >= LEAST_CASES and len(variant) >= LEAST_RUNS
    p = wilcoxon_p(table) if enough else np.nan
    return Difference(
        interval(table), p, _rank_biserial(differences), len(differences), len(variant)
    )


def wilcoxon_p(table: Float[np.ndarray, "cases labels"]) -> float:
    """Return the two-sided p-value of differences; zeros take part in the ranking (Pratt 1959)."""
    differences = case_means(table)
    found: Any = wilcoxon(differences, zero_method="pratt") if differences.any() else None
    return 1.0 if found is None else float(found.pvalue)


def _rank_biserial(differences: Float[np.ndarray, " cases"]) -> float:
    if not len(differences):
        return float("nan")
    moved = differences[differences != 0]
    if not len(moved):
        return 0.0
    ranks = rankdata(np.abs(moved))
    return float(np.sign(moved) @ ranks / ranks.sum())


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979); NaN stays, and does not count."""
    values = np.array(p, dtype=float)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known])]
    steps = values[order] * np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return values.tolist()


def warn_of_few(cases: int, runs: int) -> str:
    """Return what so few cases or runs cannot tell; an empty string where they are enough."""
    if cases < LEAST_CASES:
        are = "1 case is" if cases == 1 else f"{cases} cases are"
        return f"{are} too few for a test (at least {LEAST_CASES}): only the differences are given"
    if runs < LEAST_RUNS:
        return (
            "one run of each variant tells two networks apart, not two ways to build them: give "
            "seed=0,1,2"
        )
    if cases < 20 or runs < 3:
        return f"{cases} cases and {runs} runs of each are few: small differences may stay unseen"
    return ""
