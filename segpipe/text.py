"""Words in messages: hints, plurals, sizes, and the first line of an error."""

import difflib
from collections.abc import Iterable, Sequence


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
