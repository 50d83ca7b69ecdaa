"""What the samples of a TIFF mean: palettes, inverted grey, colour spaces, and opacity."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segpipe.errors import DataError
from segpipe.io.notes import ALPHA_DROPPED, say_once

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR = range(7)  # tag 262
COLOUR_FILTER, LINEAR_RAW = 32803, 34892
AS_THEY_ARE = (BLACK_IS_ZERO, RGB, PALETTE, MASK, COLOUR_FILTER, LINEAR_RAW)
JPEG = 7  # of the tag 259: its decoder returns RGB
ALPHA = (1, 2)  # of the tag 338: associated, unassociated


def with_palette(page: Any, array: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """Apply the page's table of colours, if it has one: to RGB, or to grey where all are grey.

    Args:
        page: the page, with its tags.
        array: the array of indices.
        axes: letters of its axes.

    Returns:
        The colours as uint8, and the letters of their axes.
    """
    if int(page.photometric) != PALETTE or page.colormap is None:
        return array, axes
    table = (np.asarray(page.colormap) >> 8).astype(np.uint8).T  # (colours, 3)
    if not table.any():  # a writer that has stored 8 bits in the 16 of the table
        table = np.asarray(page.colormap).astype(np.uint8).T
    used = table[np.unique(array)]
    if (used == used[:, :1]).all():
        return table[:, 0][array], axes
    return table[array], axes + "S"


def in_colour(path: Path, page: Any, array: np.ndarray, axes: str) -> np.ndarray:
    """Return grey with 0 as black, and colours as RGB.

    Raises:
        DataError: for a colour space that is not read.
    """
    photometric = int(page.photometric)
    if photometric == WHITE_IS_ZERO and array.dtype.kind == "u":
        return array.dtype.type(2**page.bitspersample - 1) - array
    is_decoded = photometric == YCBCR and int(page.compression) == JPEG
    if photometric in AS_THEY_ARE or photometric == WHITE_IS_ZERO or is_decoded:
        return array
    mode, expected = {CMYK: ("CMYK", 4), YCBCR: ("YCbCr", 3)}.get(photometric, ("", 0))
    samples = array.shape[axes.index("S")] if "S" in axes else 1
    if array.dtype != np.uint8 or samples != expected:
        name = getattr(page.photometric, "name", photometric)
        raise DataError(f"{path}: its colours are {name} in {array.dtype}; save it as RGB")
    samples_last = np.moveaxis(array, axes.index("S"), -1)
    rows = samples_last.reshape(-1, samples_last.shape[-2], samples)
    size = (rows.shape[1], rows.shape[0])
    converted = np.asarray(Image.frombytes(mode, size, rows.tobytes()).convert("RGB"))
    shape = (*samples_last.shape[:-1], 3)
    return np.moveaxis(converted.reshape(shape), -1, axes.index("S"))


def without_opaque_alpha(path: Path, page: Any, channels: np.ndarray) -> np.ndarray:
    """Drop channels `(C, x, y, z)` that are declared as opacity, and opaque everywhere.

    One that varies is kept: writers declare a fourth channel of data as opacity.
    """
    extra = [int(kind) for kind in page.extrasamples]
    first = len(channels) - len(extra)
    kept = []
    for number, channel in enumerate(channels):
        is_alpha = number >= first and extra[number - first] in ALPHA
        if not (is_alpha and _is_opaque(page, channel)):
            kept.append(number)
    if not kept or len(kept) == len(channels):
        return channels
    say_once(path, ALPHA_DROPPED)
    return channels[kept]


def _is_opaque(page: Any, channel: np.ndarray) -> bool:
    most = 2**page.bitspersample - 1 if channel.dtype.kind == "u" else 1
    return bool((channel == most).all())
