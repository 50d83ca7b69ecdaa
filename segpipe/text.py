"""Words in messages: hints, plurals, sizes, and the first line of an error."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence

# what no terminal, table or page should be given: control characters, the marks that turn the
# direction of writing, separators of lines, and halves of characters
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
MINUTE = 60  # s
MINUS = "\N{MINUS SIGN}"
NOT_KNOWN = "\N{EM DASH}"
MOST_NAME_BYTES = 200  # of the 255 of file systems, since suffixes such as `.nii.gz` are added


def visible(value: object) -> str:
    """Return the text of a value in one line, with what a reader would not see spelt out.

    A tab is shown as `\\t`, the beginning of an escape sequence as `\\x1b`.
    """
    return HIDDEN.sub(_spelt, str(value))


def visible_lines(text: str) -> str:
    """Return a text of several lines with all else that a reader would not see spelt out."""
    return "\n".join(map(visible, text.split("\n")))


def _spelt(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def name_fault(name: str) -> str:
    """Return why files below a folder cannot have this name, or an empty string.

    Args:
        name: the name of a case or a mask; with the folders above it, joined by `/`.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "is empty, or leaves the folder"
    return unwritable(name)


def unwritable(name: str) -> str:
    """Return what in a name no file should have, or an empty string."""
    if HIDDEN.search(name):
        return "holds a character that cannot be printed, or that is not UTF-8"
    if not name.strip():
        return "is empty"
    longest = max(len(part.encode()) for part in name.split("/"))
    if longest > MOST_NAME_BYTES:
        return f"has {longest} bytes; at most {MOST_NAME_BYTES} are allowed"
    return ""


def nearest(word: str, known: Sequence[str]) -> str:
    """Return ` Did you mean 'x'?` for the known word that is most similar, or an empty string.

    Dotted keys are compared by their last part, first with keys of the same section.
    """
    section, _, leaf = word.rpartition(".")
    siblings: dict[str, str] = {}
    anywhere: dict[str, str] = {}
    for name in known:
        group, _, last = name.rpartition(".")
        anywhere[last] = name
        if group == section:
            siblings[last] = name
    for names, cutoff in ((siblings, 0.6), (anywhere, 0.75)):
        close = difflib.get_close_matches(leaf, names, 3, cutoff)
        # two letters in the wrong order are the likeliest mistake
        close.sort(key=lambda name: sorted(name) != sorted(leaf))
        if close:
            return f" Did you mean '{names[close[0]]}'?"
    return ""


def closest(word: str, known: Sequence[str], cutoff: float = 0.4) -> list[str]:
    """Return up to three known words that are similar to `word`, the most similar first."""
    return difflib.get_close_matches(word, known, 3, cutoff)


def clipped(value: object, letters: int = 120) -> str:
    """Return the text of any value, cut where it is too long for a line."""
    text = str(value)
    return text if len(text) <= letters else f"{text[:letters]}..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where the number is not 1: `3 cases`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times(sizes: Iterable[object]) -> str:
    """Return sizes joined by `x`: `96x96x64`."""
    return "x".join(str(size) for size in sizes)


def rounded(number: float, digits: int = 3) -> str:
    """Return a number of so many significant digits without exponent, as `5,480` or `0.0125`."""
    short = float(f"{number:.{digits}g}")
    return f"{short:,.0f}" if abs(short) >= 1000 else f"{short:g}"


def decimal(number: int | float, digits: int, plus: bool = False) -> str:
    """Return a number with its decimals and a real minus sign, or a dash where it is not known.

    What rounds to 0 has no sign.

    Args:
        number: the number to show; NaN is not known.
        digits: decimals.
        plus: whether a positive number has a sign too.
    """
    if math.isnan(number):
        return NOT_KNOWN
    text = f"{number:z.{digits}f}".replace("-", MINUS)
    is_positive = number > 0 and float(text) != 0
    return f"+{text}" if plus and is_positive else text


def spoken(seconds: float) -> str:
    """Return a span of time as people say it: `40 s`, `12 min`, `3 h 20 min`, `4 days 2 h`."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
    minutes = round(seconds / MINUTE)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{count(days, 'day')} {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min"
