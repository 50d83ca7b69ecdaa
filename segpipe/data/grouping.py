"""Which cases are of one patient, by their names: as an option says, or as names suggest."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from segpipe.data.cases import Case
from segpipe.errors import ConfigError

# How names of several cases of one patient end, the surest first. Plain numbers come last.
MARKED = (
    r"(.+?)[_-](?:L|R|left|right|OD|OS|OI)",
    r"(.+?)[_-](?:ses|session|visit|scan|run|tp|time|timepoint|t|v)-?\d+",
    r"(.+?)[_-](?:frame|slice|sl|img|image|view|plane|z|f|s)-?\d+",
    r"(.+\d)[a-z]",
    r"(.+?)[_-](?:ED|ES)",
)
NUMBERED = r"(.+)[_-]\d+"
FEWEST_GROUPS = 2
MOST_SINGLE = 0.5  # share of groups that may have one case
MOST_SINGLE_NUMBERED = 0.2  # the same where only numbers tell the cases apart
MOST_UNEQUAL = 4  # times the median, of the largest group
NAMED = 3  # cases that a message names at most


@dataclass(frozen=True)
class Suggestion:
    """A grouping that the names of cases suggest.

    Attributes:
        pattern: the value for `data.group`.
        groups: group -> names of its cases, both sorted.
    """

    pattern: str
    groups: dict[str, list[str]]

    def divided(self, train: set[str], val: set[str]) -> list[str]:
        """Return the groups that have cases on both sides of a split."""
        found = []
        for group, names in self.groups.items():
            if train.intersection(names) and val.intersection(names):
                found.append(group)
        return found


def group_cases(cases: Sequence[Case], pattern: str) -> tuple[Case, ...]:
    """Return cases with the groups that a regular expression finds in their names.

    A case whose name it does not match keeps the group that it has.

    Raises:
        ConfigError: if it matches no name.
    """
    grouped = []
    matches = 0
    for case in cases:
        group = group_of(case.name, pattern)
        matches += group is not None
        grouped.append(case if group is None else replace(case, group=group))
    if not matches:
        raise ConfigError(
            f"data.group={pattern}: matches none of the {len(cases)} case names, such as "
            f"{', '.join(case.name for case in cases[:NAMED])}"
        )
    return tuple(grouped)


def group_of(name: str, pattern: str) -> str | None:
    """Return the first group of a match, else all of it; None where nothing is matched."""
    match = re.search(pattern, name)
    if match is None:
        return None
    return (match[1] if match.re.groups else match[0]) or None


def suggest_groups(names: Iterable[str]) -> Suggestion | None:
    """Return the grouping that the names of cases suggest; None where each is a case of its own.

    Names suggest one where they end in sides, visits, frames, letters or numbers, so that there are
    several groups of similar size. Numbers alone count only where what comes before them differs
    as the names of patients do: `hippocampus_001` and `hippocampus_003` are two patients.
    """
    names = sorted(set(names))
    for ending in (*MARKED, NUMBERED):
        pattern = f"^{ending}$"
        groups = _groups(names, pattern)
        if groups and _are_patients(groups, ending):
            return Suggestion(pattern, groups)
    return None


def _groups(names: Sequence[str], pattern: str) -> dict[str, list[str]]:
    """Return group -> names; empty where the pattern does not match every name."""
    groups: dict[str, list[str]] = {}
    for name in names:
        group = group_of(name, pattern)
        if group is None:
            return {}
        groups.setdefault(group, []).append(name)
    return groups


def _are_patients(groups: dict[str, list[str]], ending: str) -> bool:
    """Return whether groups are several, and of similar sizes above 1."""
    sizes = sorted(map(len, groups.values()))
    most_single = MOST_SINGLE_NUMBERED if ending == NUMBERED else MOST_SINGLE
    if len(groups) < FEWEST_GROUPS or Counter(sizes)[1] > most_single * len(groups):
        return False
    if sizes[-1] > MOST_UNEQUAL * sizes[len(sizes) // 2]:
        return False
    if ending == NUMBERED and not _are_numbered(groups):
        return len(groups) > sizes[-1]  # scanners or sites, of which each has many cases
    return True


def _are_numbered(groups: Iterable[str]) -> bool:
    """Return whether most groups have a number in their name, as patients do."""
    numbered = [bool(re.search(r"\d", group)) for group in groups]
    return sum(numbered) > len(numbered) / 2
