"""Units in which lengths and volumes are shown: mm and mL, or pixels of images without them.

Numbers in memory and in files are always in mm and mL, as if a pixel had an edge of 1 mm.
"""

import re
from dataclasses import dataclass
from typing import Literal

UnitName = Literal["mm", "px2", "px3"]
MM_OR_ML = re.compile(r"\b(?:mm|mL)\b")


@dataclass(frozen=True)
class Units:
    """The units of one dataset.

    Attributes:
        length: the unit of distances.
        volume: the unit of volumes; of images, that of areas.
        per_ml: volumes in that unit that make one mL.
        digits: decimals of volumes in tables.
    """

    length: str
    volume: str
    per_ml: float = 1.0
    digits: int = 2

    def of_volume(self, volume_ml: float) -> float:
        """Return a volume in this unit."""
        return volume_ml * self.per_ml

    def in_text(self, text: str) -> str:
        """Return a heading in mm or mL, such as `HD95 mm`, in these units."""
        return MM_OR_ML.sub(lambda found: self.length if found[0] == "mm" else self.volume, text)


UNITS: dict[str, Units] = {
    "mm": Units("mm", "mL"),
    "px2": Units("px", "px²", 1000.0, 0),
    "px3": Units("px", "px³", 1000.0, 0),
}


def unit_name(length: str, slices: int) -> UnitName:
    """Return the name of the units of a grid whose affine is in `mm` or `px`."""
    if length == "mm":
        return "mm"
    return "px2" if slices == 1 else "px3"
