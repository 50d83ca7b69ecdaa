"""Figures of matplotlib as files."""

import io
import warnings
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatterMathtext

from segpipe.files import atomic
from segpipe.text import visible_lines

DPI = 110


def save(figure: Figure, picture: Path, dpi: int = DPI) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Texts are names from files, so a `$` in them is no mathematics; the numbers at axes are.
    """
    numbers = _tick_labels(figure)
    for text in figure.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)
            text.set_text(visible_lines(text.get_text()))
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as a box
        figure.savefig(content, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    with atomic(picture) as part:
        part.write_bytes(content.getvalue())


def _tick_labels(figure: Figure) -> set[Artist]:
    """Return the labels of logarithmic axes, whose powers of ten are set as mathematics."""
    found: set[Artist] = set()
    for axes in figure.axes:
        for axis in axes.findobj(Axis):
            names = axis.get_ticklabels(which="both")
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                found.update(names)
    return found
