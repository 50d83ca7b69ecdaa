"""The size of a TIFF's voxels, where ImageJ or OME give it."""

import re
from typing import Any

import numpy as np

MM = {"nm": 1e-6, "um": 1e-3, "micron": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3, "inch": 25.4}
MICRO = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})


def spacing_mm(tiff: Any, depth: int) -> tuple[float, ...] | None:
    """Return the size of a stack's voxels, mm; None of a single slice, or where it is not given."""
    found: list[float] = []
    if depth > 1 and tiff.is_imagej:
        found = _imagej_spacing(tiff)
    elif depth > 1 and tiff.is_ome:
        found = _ome_spacing(tiff.ome_metadata)
    if len(found) != 3 or not np.isfinite(found).all() or min(found) <= 0:
        return None
    return tuple(found)


def _imagej_spacing(tiff: Any) -> list[float]:
    """Return what ImageJ writes: pixels per unit in tags, the distance of slices in its text."""
    metadata = tiff.imagej_metadata or {}
    unit = _unit_mm(str(metadata.get("unit", "")))
    sizes = []
    for tag in (282, 283):
        numerator, denominator = tiff.pages.first.tags.valueof(tag, (0, 1))
        sizes.append(unit * denominator / numerator if numerator else 0.0)
    return [*sizes, unit * float(metadata.get("spacing", 1.0))]


def _ome_spacing(xml: str) -> list[float]:
    """Return the attributes `PhysicalSizeX` and so on of the first image of an OME header."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    if pixels is None:
        return []
    given = dict(re.findall(r'(PhysicalSize\w+)\s*=\s*"([^"]*)"', pixels[0]))
    sizes = []
    for axis in "XYZ":
        unit = _unit_mm(given.get(f"PhysicalSize{axis}Unit", "um"))
        sizes.append(unit * float(given.get(f"PhysicalSize{axis}", 0)))
    return sizes


def _unit_mm(name: str) -> float:
    """Return a unit of length in mm; 0 where it is none, as `pixel`."""
    plain = name.replace("\\u00B5", "u").translate(MICRO).strip().lower()
    return MM.get(plain.removesuffix("s"), 0.0)
