"""The predicted quality of a mask: a Dice between 0 and 1, and why it is low, in words.

A model is learnt at the end of a training on its validation cases and on copies of them that were
made worse, and stored in the checkpoint. It knows what is usual of each measurement
(`prediction/quality_measures.py`), takes how far a scan's measurements lie from that as features,
each of which can only lower the quality, and maps their weighted sum to a Dice that never rises
with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
)

from segpipe.text import rounded
from segpipe.units import UNITS, Units

Measures = Mapping[str, float]
Share = Annotated[float, Field(ge=0, le=1)]
MISSING = 10.0  # deviations that a target counts as away from its usual volume when it is not found
SAID = 0.02  # of Dice that a feature must cost to be named
REASONS = 2  # that are named at most
OTHERWISE = "nothing unusual"
# least deviation of each kind of measurement, in its own unit: of few cases, all may be alike
FEWEST = {
    "volume": 0.05,
    "shape": 0.05,
    "parts": 0.35,
    "edge": 0.02,
    "inside": 0.05,
    "intensity": 0.05,
    "detail": 0.05,
}
FEATURES = ("unsure", "unsure_worst", *FEWEST)


class Usual(BaseModel):
    """What is usual of one measurement.

    Attributes:
        median: its median over the validation cases.
        deviation: robust standard deviation.
    """

    model_config = ConfigDict(frozen=True)

    median: FiniteFloat
    deviation: PositiveFloat

    def distance(self, value: float) -> float:
        """Return how many deviations a value lies from the median."""
        return abs(value - self.median) / self.deviation


@dataclass(frozen=True)
class Feature:
    """How unusual a scan is in one respect.

    Attributes:
        value: 0 where all is as usual.
        name: the name of the measurement that is farthest away; empty where there is none.
    """

    value: float = 0.0
    name: str = ""


def usual_of(rows: Sequence[Measures]) -> dict[str, Usual]:
    """Return what is usual of each measurement that half of the scans have."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    found: dict[str, Usual] = {}
    for name in names:
        kind = name.partition("/")[0]
        values = np.array([row[name] for row in rows if name in row])
        if kind in FEWEST and 2 * len(values) >= len(rows):
            median = float(np.median(values))
            spread = 1.4826 * float(np.median(np.abs(values - median)))
            found[name] = Usual(median=median, deviation=max(spread, FEWEST[kind]))
    return found


def features_of(measured: Measures, usual: Mapping[str, Usual]) -> dict[str, Feature]:
    """Return the features of a scan, by name, in the order of `FEATURES`."""
    unsure = {name: value for name, value in measured.items() if name.startswith("unsure/")}
    features = dict.fromkeys(FEATURES, Feature())
    if unsure:
        worst = max(unsure, key=lambda name: unsure[name])
        mean = float(np.mean(list(unsure.values())))
        features["unsure"] = Feature(mean, worst)
        features["unsure_worst"] = Feature(unsure[worst], worst)
    for kind in FEWEST:
        distances: dict[str, float] = {}
        for name, reference in usual.items():
            if name.startswith(f"{kind}/") and name in measured:
                distances[name] = reference.distance(measured[name])
            elif name.startswith("volume/") and kind == "volume":
                distances[name] = MISSING
        if distances:
            name = max(distances, key=lambda name: distances[name])
            features[kind] = Feature(float(np.log1p(distances[name])), name)
    return features


class QualityModel(BaseModel):
    """Predicts the Dice of a mask, the mean over the targets.

    Attributes:
        usual: the usual range of each measurement.
        weights: the weights of each feature: the Dice that it costs.
        typical: the typical value of each feature, its median over the validation cases.
        knots: pairs of weighted sum and Dice, by rising sum; the Dice never rises.
        error: mean absolute error on cases that the model has not seen.
        rank: Spearman's correlation with the true Dice, likewise.
        cases: number of cases that it has learnt from.
        scans: number of scans that it has learnt from: those of the cases, and copies that were
            made worse.
    """

    model_config = ConfigDict(frozen=True)

    usual: dict[str, Usual]
    weights: dict[str, NonNegativeFloat]
    typical: dict[str, FiniteFloat]
    knots: list[tuple[FiniteFloat, Share]] = Field(min_length=1)
    error: NonNegativeFloat
    rank: Annotated[float, Field(ge=-1, le=1)]
    cases: NonNegativeInt
    scans: NonNegativeInt

    def __str__(self) -> str:
        """Return in one line how well it predicts."""
        return (
            f"predicted Dice is {self.error:.3f} off on average, rank correlation with the true "
            f"one {self.rank:.2f}, on {self.cases} validation cases and "
            f"{self.scans - self.cases} copies that were made worse"
        )

    def predict(self, measured: Measures, units: Units = UNITS["mm"]) -> "Quality":
        """Return the quality that measurements speak for, and the reasons.

        Args:
            measured: the measurements of a scan and its mask.
            units: the units in which volumes are named.
        """
        features = features_of(measured, self.usual)
        total = 0.0
        costs: dict[str, float] = {}
        for name, found in features.items():
            weight = self.weights.get(name, 0.0)
            total += weight * found.value
            costs[name] = weight * (found.value - self.typical.get(name, 0.0))
        said: dict[str, None] = {}
        for name in sorted(costs, key=lambda name: -costs[name]):
            if costs[name] >= SAID and features[name].name:
                said[self._words(features[name].name, measured, units)] = None
        reason = "; ".join(list(said)[:REASONS]) or OTHERWISE
        sums, dice = zip(*self.knots, strict=True)
        return _capped(Quality(float(np.interp(total, sums, dice)), reason), measured)

    def _words(self, name: str, measured: Measures, units: Units) -> str:
        """Return in words what is unusual of a measurement."""
        kind, _, rest = name.partition("/")
        value = measured.get(name)
        usual = self.usual.get(name)
        if kind == "unsure":
            return f"the network is unsure of {rest}"
        if value is None or usual is None:
            return f"finds no {rest}"
        if kind == "volume":
            low = units.of_volume(np.exp(usual.median - 2 * usual.deviation))
            high = units.of_volume(np.exp(usual.median + 2 * usual.deviation))
            found = f"{rounded(units.of_volume(np.exp(value)))} {units.volume}"
            return f"{rest} has {found}, usually {rounded(low)} to {rounded(high)}"
        if kind == "parts":
            return f"{rest} has {np.exp(value):.0f} parts, usually {np.exp(usual.median):.0f}"
        if kind == "edge":
            return f"{rest} reaches the edge of the scan more than usual"
        if kind == "shape":
            rougher = "more" if value > usual.median else "less"
            return f"{rest} has {rougher} surface for its volume than usual"
        if kind == "inside":
            return f"unusual intensities inside {rest.rpartition('/')[0]}"
        if kind == "detail":
            what = "noisier or sharper" if value > usual.median else "smoother"
            return f"the scan is {what} than usual"
        return "the scan's intensities are unusual"


@dataclass(frozen=True)
class Quality:
    """The predicted quality of a mask.

    Attributes:
        dice: mean over the targets.
        reason: what is unusual, in words.
    """

    dice: float
    reason: str


def _capped(quality: Quality, measured: Measures) -> Quality:
    """Return a quality that is no higher than the agreement of averaged predictions.

    A model is learnt of one network without mirrored windows, so it knows nothing of these.
    """
    apart = {name: value for name, value in measured.items() if name.startswith("disagree/")}
    if not apart:
        return quality
    agreement = 1 - float(np.mean(list(apart.values())))
    if agreement >= quality.dice:
        return quality
    worst = max(apart, key=lambda name: apart[name]).partition("/")[2]
    return Quality(agreement, f"averaged predictions disagree on {worst}; {quality.reason}")


def predict_quality(
    models: Sequence[QualityModel], measured: Measures, units: Units = UNITS["mm"]
) -> Quality | None:
    """Return the mean of what models predict, one per network; None where there is none.

    The reason is that of the model that predicts the lowest quality.
    """
    if not models:
        return None
    found = [model.predict(measured, units) for model in models]
    worst = min(found, key=lambda quality: quality.dice)
    return Quality(float(np.mean([quality.dice for quality in found])), worst.reason)
