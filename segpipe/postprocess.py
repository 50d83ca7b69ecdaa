"""Post-processing of masks, as a training chooses it and a checkpoint stores it."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat

from segpipe.text import rounded
from segpipe.units import Units

USUAL = 0.5  # probability from which a label or region is taken where no threshold is stored
Threshold = Annotated[float, Field(gt=0, lt=1)]
Temperature = Annotated[float, Field(ge=0.05, le=20)]


class PostProcess(BaseModel):
    """What is done to the masks of a network; nothing where all is empty.

    Attributes:
        thresholds: label or region -> the probability from which it is taken, against the most
            probable other label; 0.5 where it has none.
        keep_largest: labels of which only the largest component stays.
        min_volume_ml: label -> the smallest volume of a component that stays, mL.
        temperature: the divisor of the logits before probabilities and entropy are saved; masks do
            not depend on it.
    """

    model_config = ConfigDict(frozen=True)

    thresholds: dict[str, Threshold] = {}
    keep_largest: list[str] = []
    min_volume_ml: dict[str, NonNegativeFloat] = {}
    temperature: Temperature = 1.0

    @classmethod
    def merge(cls, members: Sequence["PostProcess"]) -> "PostProcess":
        """Return what suits the mean of several networks.

        A label's threshold and smallest volume, and the temperature, are the medians over the
        members, and its largest component alone stays where most members keep it alone.
        """
        thresholds = _medians([member.thresholds for member in members], USUAL)
        volumes = _medians([member.min_volume_ml for member in members], 0.0)
        keeping: dict[str, int] = {}
        for member in members:
            for name in member.keep_largest:
                keeping[name] = keeping.get(name, 0) + 1
        largest = [name for name, number in keeping.items() if 2 * number > len(members)]
        return cls(
            thresholds=thresholds,
            keep_largest=largest,
            min_volume_ml=volumes,
            temperature=median([member.temperature for member in members]),
        )

    @classmethod
    def union(cls, members: Sequence["PostProcess"]) -> "PostProcess":
        """Return what suits the labels of several networks, each with labels of its own.

        Where two have one label, the later network's counts. Temperatures are left out.
        """
        thresholds: dict[str, float] = {}
        volumes: dict[str, float] = {}
        largest: dict[str, None] = {}
        for member in members:
            thresholds |= member.thresholds
            volumes |= member.min_volume_ml
            largest |= dict.fromkeys(member.keep_largest)
        return cls(thresholds=thresholds, keep_largest=list(largest), min_volume_ml=volumes)

    def line(self, units: Units) -> str:
        """Return it in words, with volumes in these units; `none` where nothing is done."""
        parts = []
        for name, threshold in self.thresholds.items():
            parts.append(f"threshold {threshold:g} for {name}")
        for name in self.keep_largest:
            parts.append(f"largest part of {name}")
        for name, volume in self.min_volume_ml.items():
            size = f"{rounded(units.of_volume(volume))} {units.volume}"
            parts.append(f"no part of {name} below {size}")
        if self.temperature != 1:
            parts.append(f"temperature {self.temperature:.3g} of saved probabilities")
        return ", ".join(parts) or "none"


def _medians(members: Sequence[Mapping[str, float]], usual: float) -> dict[str, float]:
    """Return the median of each name's values, without those that are as usual."""
    names: dict[str, None] = {}
    for member in members:
        names |= dict.fromkeys(member)
    found = {}
    for name in names:
        value = median([member.get(name, usual) for member in members])
        if value != usual:
            found[name] = value
    return found
