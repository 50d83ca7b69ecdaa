"""Figures of matplotlib as files."""

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

from segpipe.files import atomic
from segpipe.reporting.formats import in_use
from segpipe.text import rounded, visible_lines

DPI = 110
# of texts as texts rather than as outlines: they can be searched and edited, and fonts are inside
TEXTS: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "segpipe"}
NO_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same figure, the same file


def save(figure: Figure, picture: Path, dpi: int = DPI) -> None:
    """Write a figure as a PNG file, and beside it in the formats of `figures_as`.

    Each file is written whole or not at all. Texts are names from files, so a `$` in them is no
    mathematics; the numbers at axes are.

    Args:
        figure: to write.
        picture: PNG to write.
        dpi: dots per inch of the PNG, and of images inside the other formats.

    Raises:
        DataError: if a file cannot be written, as on a full disk.
    """
    numbers = _tick_labels(figure)
    for text in figure.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)
            text.set_text(visible_lines(text.get_text()))
    for name in in_use():
        content = io.BytesIO()
        options = {"dpi": dpi, "facecolor": figure.get_facecolor(), "metadata": NO_DATE.get(name)}
        with warnings.catch_warnings(), mpl.rc_context(TEXTS):
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as a box
            figure.savefig(content, format=name, **options)
        with atomic(picture.with_name(f"{picture.name.removesuffix('.png')}.{name}")) as part:
            part.write_bytes(content.getvalue())


class PlainLogFormatter(LogFormatter):
    """Labels a logarithmic axis as people write numbers, where it is short also between tens."""

    def __init__(self) -> None:
        super().__init__(labelOnlyBase=False, minor_thresholds=(2, 0.5))

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the label of a tick; an empty one where there is no room."""
        return rounded(x) if super().__call__(x, pos) else ""


def show_plain_numbers(axis: Axis) -> None:
    """Label the ticks of a logarithmic axis by a `PlainLogFormatter`."""
    axis.set_major_formatter(PlainLogFormatter())
    axis.set_minor_formatter(PlainLogFormatter())


def _tick_labels(figure: Figure) -> set[Artist]:
    """Return the labels of logarithmic axes, whose powers of ten are set as mathematics."""
    found: set[Artist] = set()
    for axes in figure.axes:
        for axis in axes.findobj(Axis):
            names = axis.get_ticklabels(which="both")
            formatters = (axis.get_major_formatter(), axis.get_minor_formatter())
            if any(isinstance(formatter, LogFormatterMathtext) for formatter in formatters):
                found.update(names)
    return found
