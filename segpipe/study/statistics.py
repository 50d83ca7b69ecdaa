"""Paired comparison of variants over cases: rank tests, Holm correction, non-inferiority."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata, wilcoxon

from segpipe.intervals import Interval, case_means, interval
from segpipe.text import count

LEAST_CASES = 6  # with fewer no difference, however clear, can have p < 0.05
ENOUGH_CASES = 20
LEAST_RUNS = 2  # with one, p would tell two networks apart, but not two ways to build them
Inferiority = Literal["not inferior", "inferior", "open"]


@dataclass(frozen=True)
class Difference:
    """The difference of a variant to the reference, case by case.

    Attributes:
        interval: the interval of the mean difference.
        p: the p-value of Wilcoxon's signed-rank test over the cases, two-sided; NaN where cases or
            runs are too few.
        effect: matched-pairs rank-biserial correlation (Kerby 2014): the share of the rank sum in
            favour of the variant less the share against it, from -1 to 1; NaN where cases are too
            few.
        cases: number of cases that were compared.
        runs: number of runs of each of the two, with the same seeds and folds.
    """

    interval: Interval
    p: float
    effect: float
    cases: int
    runs: int


def compare(
    variant: Sequence[Float[np.ndarray, "cases labels"]],
    reference: Sequence[Float[np.ndarray, "cases labels"]],
    least_runs: int = LEAST_RUNS,
) -> Difference:
    """Return the paired difference of one metric, averaged over runs before cases are compared.

    Args:
        variant: a table per run; NaN where a case was not validated or does not have a target.
        reference: likewise, of the same seeds and folds in the same order.
        least_runs: the least number of runs of each, for a test.
    """
    with warnings.catch_warnings():
        # a case that no run has is NaN, and left out
        warnings.simplefilter("ignore", RuntimeWarning)
        table = np.nanmean(np.array(variant) - np.array(reference), axis=0)
    differences = case_means(table)
    p = float("nan")
    effect = float("nan")
    if len(differences) >= LEAST_CASES:
        effect = _rank_biserial(differences)
        if len(variant) >= least_runs:
            p = wilcoxon_p(table)
    return Difference(interval(table), p, effect, len(differences), len(variant))


def mean_over_runs(
    tables: Float[np.ndarray, "runs cases labels"],
) -> Float[np.ndarray, "cases labels"]:
    """Return the mean over the runs that have a value; NaN where none has."""
    runs = (~np.isnan(tables)).sum(axis=0)
    return np.where(runs > 0, np.nansum(tables, axis=0) / np.maximum(runs, 1), np.nan)


def mean_of_rows(table: Float[np.ndarray, "cases labels"]) -> list[float]:
    """Return for each case the mean over its targets; NaN where it has none."""
    means = np.full(len(table), np.nan)
    known = ~np.isnan(table).all(axis=1)
    means[known] = np.nanmean(table[known], axis=1)
    return means.tolist()


def spread_over_runs(tables: Float[np.ndarray, "runs cases labels"]) -> float:
    """Return the standard deviation over runs of the mean over targets and cases."""
    means: list[float] = []
    for table in tables:
        known = table[:, ~np.isnan(table).all(axis=0)]
        if known.size:
            means.append(float(np.nanmean(known, axis=0).mean()))
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


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


def inferiority(difference: Interval, margin: float) -> Inferiority:
    """Return whether a variant is not inferior to the reference, by its 95 % interval.

    That is the one-sided test at a level of 2.5 %.

    Args:
        difference: the difference of a metric of which more is better, variant less reference.
        margin: the loss that would not matter, above 0; to be chosen before the scores are seen.
    """
    if difference.low > -margin:
        return "not inferior"
    return "inferior" if difference.high < -margin else "open"


def warn_of_few(cases: int, runs: int) -> str:
    """Return what so few cases or runs cannot tell; an empty string where they are enough."""
    if cases < LEAST_CASES:
        return too_few(cases)
    if runs < LEAST_RUNS:
        return (
            "one run of each variant tells two networks apart, not two ways to build them: give "
            "seed=0,1,2"
        )
    if cases < ENOUGH_CASES or runs < 3:
        counted = f"{count(cases, 'case')} and {count(runs, 'run')}"
        return f"{counted} of each are few: small differences may stay unseen"
    return ""


def warn_of_few_cases(cases: int) -> str:
    """Return what so few cases cannot tell of masks; an empty string where they are enough."""
    if cases < LEAST_CASES:
        return too_few(cases)
    if cases < ENOUGH_CASES:
        return f"{cases} cases are few: small differences may stay unseen"
    return ""


def too_few(cases: int) -> str:
    """Return that a number of cases is too few for a test."""
    are = "1 case is" if cases == 1 else f"{cases} cases are"
    return f"{are} too few for a test (at least {LEAST_CASES})"
