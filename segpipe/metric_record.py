"""What tables, plots and tests need to know of a metric, beside the function that computes it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from typing import Literal

import numpy as np

from segpipe.mask_pairs import MaskPair
from segpipe.registry import METRICS

NAN = float("nan")
Measure = Callable[[MaskPair], float]
TableName = Literal["scores", "summary", "study", "tests"]


@dataclass
class Metric:
    """A metric and what tables, plots and tests need to know of it.

    Attributes:
        measure: computes the value from two masks, both of which hold the target.
        title: heading without the unit, such as `HD95`.
        digits: decimals in tables.
        unit: such as `mm`; empty for a share between 0 and 1.
        better: which values are the better ones.
        miss: value of a miss and of a false alarm; `diagonal` is that of the image, mm.
        summary: whether a run's summary shows its mean.
        study: whether a study shows its mean.
        tested: whether a study also shows its spread and interval, and tests differences of it.
        usual: whether it is measured where `metrics` names none.
        empty: whether the function itself has a value where a mask, or both, are empty.
    """

    measure: Measure
    title: str
    digits: int
    unit: str
    better: Literal["higher", "lower"]
    miss: float | Literal["diagonal"]
    summary: bool
    study: bool
    tested: bool
    usual: bool = True
    empty: bool = False

    def __call__(self, pair: MaskPair) -> float:
        """Return the value for a pair of masks, either or both of which may be empty."""
        if self.empty or (pair.predicted_voxels and pair.true_voxels):
            return float(self.measure(pair))
        if not pair.predicted_voxels and not pair.true_voxels:
            return NAN
        return pair.diagonal_mm if self.miss == "diagonal" else self.miss

    @property
    def heading(self) -> str:
        """Return the title with the unit: `HD95 mm`."""
        return f"{self.title} {self.unit}".strip()

    @property
    def is_share(self) -> bool:
        """Return whether values lie between 0 and 1; differences of them are shown in points."""
        return not self.unit

    @property
    def difference_scale(self) -> float:
        """Return the factor from a difference to what is shown: 100 for points, else 1."""
        return 100.0 if self.is_share else 1.0

    @property
    def difference_heading(self) -> str:
        """Return the heading of a difference: `Dice, points` or `HD95, mm`."""
        return f"{self.title}, {self.unit or 'points'}"

    @property
    def difference_digits(self) -> int:
        """Return the decimals of a difference as it is shown, which of points are two fewer."""
        return max(0, self.digits - 2) if self.is_share else self.digits

    @property
    def is_distance(self) -> bool:
        """Return whether a miss has the image's diagonal as its value."""
        return self.miss == "diagonal"

    def stands_in(self, table: TableName) -> bool:
        """Return whether a table shows the metric; the table of all scores shows every one."""
        flags = {"summary": self.summary, "study": self.study, "tests": self.tested}
        return flags.get(table, True)


def metric(
    *,
    title: str,
    digits: int = 3,
    unit: str = "",
    better: Literal["higher", "lower"] = "higher",
    miss: float | Literal["diagonal"] = 0.0,
    summary: bool = True,
    study: bool = True,
    tested: bool = False,
    usual: bool = True,
    empty: bool = False,
) -> Callable[[Measure], Metric]:
    """Return a decorator that makes a `Metric` of a function; for the arguments see there."""

    def make(measure: Measure) -> Metric:
        made = Metric(
            measure,
            title=title,
            digits=digits,
            unit=unit,
            better=better,
            miss=miss,
            summary=summary,
            study=study,
            tested=tested,
            usual=usual,
            empty=empty,
        )
        update_wrapper(made, measure)  # the registry asks in which module an entry is defined
        return made

    return make


def mean_of_known(values: Iterable[float], none: float = NAN) -> float:
    """Return the mean of the values that are not NaN.

    Args:
        values: the values to average.
        none: what is returned where there are none.
    """
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else none


class MetricValues:
    """Values of metrics by name; each is an attribute too, NaN where it was not measured."""

    values: Mapping[str, float]

    def __getattr__(self, name: str) -> float:
        """Return the value of a metric.

        Raises:
            AttributeError: if no metric has this name.
        """
        if name not in METRICS:
            raise AttributeError(f"{type(self).__name__} has no attribute or metric {name}")
        return self.__dict__["values"].get(name, NAN)
