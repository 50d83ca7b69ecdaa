"""Few combinations of many choices."""

import itertools
from collections.abc import Sequence
from typing import Any

Pair = tuple[tuple[int, Any], tuple[int, Any]]


def pairwise(*choices: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return rows in which every two values of every two factors meet at least once.

    The rows are always the same: each is the first of the full product that has the most pairs
    which no earlier row has.

    Args:
        choices: the values of each factor.
    """
    pairs = {row: _pairs(row) for row in itertools.product(*choices)}
    missing = set().union(*pairs.values())
    rows = []
    while missing:
        best = max(pairs, key=lambda row: len(pairs[row] & missing))
        rows.append(best)
        missing -= pairs[best]
    return rows


def _pairs(row: tuple[Any, ...]) -> set[Pair]:
    return set(itertools.combinations(enumerate(row), 2))
