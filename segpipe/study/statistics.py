"""How sure a difference is: paired over cases, with an interval, and corrected for having asked more than once."""

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
    """What a variant has more than the reference, case by case.

    Attributes:
        interval: of the mean difference.
        p: of Wilcoxon's signed-rank test over the cases, two-sided; NaN where cases or runs are too few to tell.
        effect: matched-pairs rank-biserial correlation (Kerby 2014): the share of the rank sum in favour of the variant
            less that against it, from -1 to 1.
        cases: that were compared.
        runs: of each of the two, with the same seeds and folds.
    """

    interval: Interval
    p: float
    effect: float
    cases: int
    runs: int


def case_means(table: Float[np.ndarray, "cases labels"]) -> Float[np.ndarray, " cases"]:
    """Per case the mean over the targets that it has; cases that have none are left out."""
    known = ~np.isnan(table).all(axis=1)
    return np.nanmean(table[known], axis=1)


def interval(table: Float[np.ndarray, "cases labels"], seed: int = 0) -> Interval:
    """Mean and 95 % interval, by a bias-corrected and accelerated bootstrap over the cases (Efron 1987).

    Args:
        table: NaN where a case does not have a target.
        seed: of the resampling.
    """
    table = table[:, ~np.isnan(table).all(axis=0)]
    table = table[~np.isnan(table).all(axis=1)]
    if not table.size:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(_mean(table, np.arange(len(table))))
    if len(table) < 2 or np.ptp(case_means(table)) == 0:
        return Interval(mean, *((np.nan, np.nan) if len(table) < 2 else (mean, mean)))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DegenerateDataWarning
        )  # its interval is NaN then, and is shown as not known
        found = bootstrap(
            (np.arange(len(table)),),
            lambda places, axis=-1: _mean(table, places),
            n_resamples=RESAMPLES,
            batch=500,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def _mean(table: Float[np.ndarray, "cases labels"], places: np.ndarray) -> np.ndarray:
    """Per row of places the mean over the targets of the means over those cases that have them."""
    drawn = table[places.astype(int)]
    if not np.isnan(table).any():
        return np.asarray(drawn.mean(axis=(-2, -1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a target that none of the drawn cases has
        return np.asarray(np.nanmean(np.nanmean(drawn, axis=-2), axis=-1))


def compare(
    variant: Sequence[Float[np.ndarray, "cases labels"]],
    reference: Sequence[Float[np.ndarray, "cases labels"]],
) -> Difference:
    """Paired difference of one metric, averaged over runs of the same seed and fold before cases are compared.

    Args:
        variant: a table for each run; NaN where a case was not validated or does not have a target.
        reference: likewise, of the same seeds and folds in the same order.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a case that no run has is NaN, and left out
        table = np.nanmean(np.array(variant) - np.array(reference), axis=0)
    differences = case_means(table)
    enough = len(differences) >= LEAST_CASES and len(variant) >= LEAST_RUNS
    p = wilcoxon_p(table) if enough else np.nan
    return Difference(
        interval(table), p, _rank_biserial(differences), len(differences), len(variant)
    )


def wilcoxon_p(table: Float[np.ndarray, "cases labels"]) -> float:
    """Of differences, two-sided; those that are 0 take part in the ranking (Pratt 1959)."""
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
    """p-values corrected for how many there are (Holm 1979); NaN stays, and does not count."""
    values = np.array(p, dtype=float)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known])]
    steps = values[order] * np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return values.tolist()


def warn_of_few(cases: int, runs: int) -> str:
    """What so few cases or runs cannot tell; nothing where they are enough."""
    if cases < LEAST_CASES:
        are = "1 case is" if cases == 1 else f"{cases} cases are"
        return f"{are} too few for a test (at least {LEAST_CASES}): only the differences are given"
    if runs < LEAST_RUNS:
        return "one run of each variant tells two networks apart, not two ways to build them: give seed=0,1,2"
    if cases < 20 or runs < 3:
        return f"{cases} cases and {runs} runs of each are few: small differences may stay unseen"
    return ""
