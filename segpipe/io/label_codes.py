"""The codes by which other programs know what a label shows.

`label_codes.csv` has a line for each code: names of labels that mean it, the code and its meaning
in SNOMED CT as DICOM has them, and the category of what it names.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

TABLE = Path(__file__).with_name("label_codes.csv")
SNOMED = "SCT"


@dataclass(frozen=True)
class Concept:
    """A concept of a coding scheme.

    Attributes:
        scheme: name of the coding scheme, such as `SCT` for SNOMED CT.
        value: the value of the concept in its scheme.
        meaning: the meaning of the concept, for people.
    """

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class LabelCode:
    """What a label shows.

    Attributes:
        concept: the structure.
        category: its kind, such as an anatomical structure or a tissue.
        side: left or right, where the concept leaves it open; else None.
    """

    concept: Concept
    category: Concept
    side: Concept | None = None


UNKNOWN = Concept(SNOMED, "261665006", "Unknown")
UNKNOWN_LABEL = LabelCode(UNKNOWN, UNKNOWN)
CATEGORIES = {
    "AnatomicalStructure": Concept(SNOMED, "91723000", "Anatomical Structure"),
    "MorphologicallyAbnormalStructure": Concept(
        SNOMED, "49755003", "Morphologically Abnormal Structure"
    ),
    "Tissue": Concept(SNOMED, "85756007", "Tissue"),
}
SIDES = {
    "left": Concept(SNOMED, "7771000", "Left"),
    "right": Concept(SNOMED, "24028007", "Right"),
}


def code_of(name: str, given: Mapping[str, Sequence[str]] | None = None) -> LabelCode:
    """Return the code of a label, by its name; `UNKNOWN_LABEL` where there is none.

    Args:
        name: the name of the label.
        given: codes that go before the table: scheme, value and meaning, and those of the category
            where it is named.
    """
    if given and name in given:
        return _given_code(given[name])
    table = _table()
    words = re.sub(r"[\s_\-]+", " ", name).strip().lower()
    if words in table:
        return table[words]
    sides = [word for word in words.split() if word in SIDES]
    rest = " ".join(word for word in words.split() if word not in SIDES)
    if len(sides) == 1 and rest in table:
        return replace(table[rest], side=SIDES[sides[0]])
    return UNKNOWN_LABEL


def _given_code(parts: Sequence[str]) -> LabelCode:
    """Return the code of three or six texts; its category is the table's, where it has the code."""
    concept = Concept(*parts[:3])
    if len(parts) == 6:
        return LabelCode(concept, Concept(*parts[3:]))
    for known in _table().values():
        if (known.concept.scheme, known.concept.value) == (concept.scheme, concept.value):
            return LabelCode(concept, known.category)
    return LabelCode(concept, UNKNOWN)


@lru_cache(maxsize=1)
def _table() -> dict[str, LabelCode]:
    """Return the codes of the table, by each name that means them."""
    found = {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            concept = Concept(SNOMED, row["code"], row["meaning"])
            for name in row["names"].split(";"):
                found[name] = LabelCode(concept, CATEGORIES[row["category"]])
    return found
