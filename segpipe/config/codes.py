"""Codes of labels as keys of the config: `{liver: [SCT, 10200004, Liver]}`."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

LONGEST = (16, 16, 64)  # characters of a scheme, a value and a meaning in DICOM
CODES_HELP = (
    "codes of labels for DICOM, as {liver:[SCT,10200004,Liver]}: scheme, value, meaning, and the "
    "same three of the category; null = a table of common names, else Unknown"
)


def _checked(given: object) -> object:
    """Return codes as texts, as they are written into DICOM files.

    Raises:
        ValueError: if one has not three or six parts, or a part is empty or too long.
    """
    if not isinstance(given, Mapping):
        return given
    codes = {}
    for name, parts in given.items():
        texts = [str(part).strip() for part in parts] if isinstance(parts, list | tuple) else []
        if len(texts) not in (3, 6):
            raise ValueError(f"the code of {name} needs [scheme,value,meaning], or six parts")
        for text, longest in zip(texts, LONGEST * 2, strict=False):
            if not text or len(text) > longest or "\\" in text or not text.isprintable():
                raise ValueError(
                    f"the code of {name} has the part {text[:70]!r}, which DICOM does not take (1 "
                    f"to {longest} characters)"
                )
        codes[name] = texts
    return codes


Codes = Annotated[dict[str, list[str]], BeforeValidator(_checked)]
