"""Means of scores over cases, with 95 % bootstrap intervals."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from segpipe.metrics import Score
from segpipe.text import MINUS, decimal

RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % bootstrap interval over cases around it.

    Attributes:
        mean: the mean over the targets of their means over the cases that have them.
        low: the lower end of the interval.
        high: the upper end of the interval.
    """

    mean: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """Return the interval in another unit, as 100 for points of a share."""
        return Interval(factor * self.mean, factor * self.low, factor * self.high)

    def ends(self, digits: int) -> str:
        """Return the ends as text, joined by a dash, or by `to` where one is negative.

        Returns:
            The text, whose blanks do not break; an empty string where the ends are not known.
        """
        if not np.isfinite(self.low):
            return ""
        ends = [decimal(self.low, digits), decimal(self.high, digits)]
        has_sign = MINUS in "".join(ends)
        return ("\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}" if has_sign else "\N{EN DASH}").join(ends)

    def shown(self, digits: int, plus: bool = False) -> str:
        """Return the mean as text, with the ends in brackets.

        Args:
            digits: decimals of each number.
            plus: whether a positive mean has its sign, as a difference does.

        Returns:
            The text; the mean alone where the ends are not known, and nothing where it is not.
        """
        if not np.isfinite(self.mean):
            return ""
        mean = decimal(self.mean, digits, plus)
        ends = self.ends(digits)
        return f"{mean}\N{NO-BREAK SPACE}({ends})" if ends else mean


def cases_and_labels(scores: Iterable[Score]) -> tuple[list[str], list[str]]:
    """Return the names of all cases and targets, in the order in which they occur."""
    cases: dict[str, None] = {}
    labels: dict[str, None] = {}
    for score in scores:
        cases[score.case] = None
        labels[score.label] = None
    return list(cases), list(labels)


def metric_table(
    scores: Iterable[Score], metric: str, cases: Sequence[str], labels: Sequence[str]
) -> Float[np.ndarray, "cases labels"]:
    """Return one metric as a table; NaN where neither mask has the target."""
    table = np.full((len(cases), len(labels)), np.nan)
    rows = {case: row for row, case in enumerate(cases)}
    columns = {label: column for column, label in enumerate(labels)}
    for score in scores:
        if score.case in rows and score.label in columns:
            table[rows[score.case], columns[score.label]] = getattr(score, metric)
    return table


def case_means(table: Float[np.ndarray, "cases labels"]) -> Float[np.ndarray, " known"]:
    """Return for each case the mean over its targets; cases without a target are left out."""
    known = ~np.isnan(table).all(axis=1)
    return np.nanmean(table[known], axis=1)


def interval(table: Float[np.ndarray, "cases labels"], seed: int = 0) -> Interval:
    """Return the mean and its 95 % interval, by the BCa bootstrap over the cases (Efron 1987).

    Args:
        table: one metric; NaN where a case does not have a target.
        seed: the seed of the resampling.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap  # which takes long to import

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
