"""The cases on which systems of any origin can be compared, and why the others cannot be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segpipe.errors import ConfigError
from segpipe.study.sources import System
from segpipe.study.sweep import Repeat, Source, Variant
from segpipe.text import count

SAME_VOLUME = 1e-4  # relative difference of two volumes of one truth, as of rounded spacings
NAMED = 3
Volumes = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Common:
    """What all systems have in common.

    Attributes:
        systems: with the scores of the common cases and labels alone.
        left_out: name of each other case -> why it is left out.
        notes: sentences on what is compared.
        cautions: what the reader must make sure of.
    """

    systems: Sequence[System]
    left_out: Mapping[str, str]
    notes: Sequence[str]
    cautions: Sequence[str]


def find_common(systems: Sequence[System]) -> Common:
    """Return the systems on the cases and labels that all of them have scored.

    A case that trained one of them is left out, and so is one whose truths differ.

    Raises:
        ConfigError: if they have no case or no label in common.
    """
    labels = _common_labels(systems)
    scored = [_scored(system) for system in systems]
    cases = sorted(frozenset().union(*scored))
    left_out: dict[str, str] = {}
    for case in cases:
        reason = _why_left_out(case, systems, scored)
        if reason:
            left_out[case] = reason
    left_out |= _other_truths(systems, set(cases) - set(left_out), labels)
    common = [case for case in cases if case not in left_out]
    if not common:
        examples = [
            f"{system.name}: {_shown(sorted(cases))}"
            for system, cases in zip(systems, scored, strict=True)
        ]
        raise ConfigError(f"compare: no case in common ({'; '.join(examples)})")
    kept = [_restricted(system, set(common), labels) for system in systems]
    notes = _notes(systems, scored, common, left_out, labels)
    return Common(kept, left_out, notes, _cautions(systems))


def _scored(system: System) -> frozenset[str]:
    """Return the cases that any run of a system has scored."""
    return frozenset().union(*(source.cases for source in system.runs.values()))


def _trained(system: System) -> frozenset[str]:
    """Return the cases that are known to have trained a system."""
    return frozenset().union(*(source.train or frozenset() for source in system.runs.values()))


def _labels_of(system: System) -> list[str]:
    """Return the labels that are scored in any run of a system, in the order of its runs."""
    found: dict[str, None] = {}
    for source in system.runs.values():
        found |= dict.fromkeys(score.label for score in source.scores)
    return list(found)


def _common_labels(systems: Sequence[System]) -> list[str]:
    """Return the labels that all systems have, in the order of the first one.

    Raises:
        ConfigError: if there is none.
    """
    names = list(map(_labels_of, systems))
    everywhere = frozenset(names[0]).intersection(*names)
    common = [label for label in names[0] if label in everywhere]
    if not common:
        examples = [f"{one.name}: {_shown(own)}" for one, own in zip(systems, names, strict=True)]
        raise ConfigError(f"compare: no label in common ({'; '.join(examples)}); name them alike")
    return common


def _why_left_out(case: str, systems: Sequence[System], scored: Sequence[frozenset[str]]) -> str:
    """Return why a case cannot be compared; an empty string where it can."""
    trained: list[str] = []
    missing: list[str] = []
    for system, cases in zip(systems, scored, strict=True):
        # of folds, each case has trained other networks than the one that scored it
        if case in cases:
            continue
        if case in _trained(system):
            trained.append(system.name)
        else:
            missing.append(system.name)
    if trained:
        return f"trained {', '.join(trained)}"
    return f"not scored by {', '.join(missing)}" if missing else ""


def _other_truths(
    systems: Sequence[System], cases: set[str], labels: Sequence[str]
) -> dict[str, str]:
    """Return the cases whose truths have other volumes in one system than in the first."""
    first = _volumes(systems[0])
    found: dict[str, str] = {}
    for system in systems[1:]:
        volumes = _volumes(system)
        for (case, label), volume in sorted(volumes.items()):
            there = first.get((case, label), np.nan)
            if case not in cases or label not in labels or np.isnan([volume, there]).any():
                continue
            if not np.isclose(volume, there, rtol=SAME_VOLUME):
                found[case] = (
                    f"its truth has {there:.4g} mL of {label} in {systems[0].name}, but "
                    f"{volume:.4g} mL in {system.name}"
                )
    return found


def _volumes(system: System) -> Volumes:
    """Return the volume of each truth, mL; NaN where a table does not have it."""
    volumes: dict[tuple[str, str], float] = {}
    for source in system.runs.values():
        for score in source.scores:
            volumes[score.case, score.label] = score.truth_ml
    return volumes


def _restricted(system: System, cases: set[str], labels: Sequence[str]) -> System:
    """Return a system with the scores of these cases and labels alone."""
    runs: dict[Repeat, Source] = {}
    for repeat, source in system.runs.items():
        scores = [one for one in source.scores if one.case in cases and one.label in labels]
        runs[repeat] = replace(source, scores=scores)
    return Variant(system.name, system.overrides, runs)


def _notes(
    systems: Sequence[System],
    scored: Sequence[frozenset[str]],
    common: Sequence[str],
    left_out: Mapping[str, str],
    labels: Sequence[str],
) -> list[str]:
    """Return sentences on the cases and labels that are compared."""
    sizes = [f"{system.name} has {len(own)}" for system, own in zip(systems, scored, strict=True)]
    notes = [f"Compared on the {count(len(common), 'case')} that all have ({', '.join(sizes)})."]
    leaked = [case for case, reason in left_out.items() if reason.startswith("trained ")]
    if leaked:
        notes.append(
            f"{count(len(leaked), 'case')} left out since they trained one of the networks "
            f"({_shown(leaked)})."
        )
    others = [case for case in left_out if case not in leaked]
    if others:
        notes.append(f"{count(len(others), 'other case')} left out ({_shown(others)}).")
    for system in systems:
        more = sorted(set(_labels_of(system)) - set(labels))
        if more:
            notes.append(f"Labels of {system.name} alone, not compared: {_shown(more)}.")
    return notes


def _cautions(systems: Sequence[System]) -> list[str]:
    """Return what the reader must make sure of."""
    cautions: list[str] = []
    unknown: list[str] = []
    for system in systems:
        if any(source.train is None for source in system.runs.values()):
            unknown.append(system.name)
    if unknown:
        cautions.append(
            f"which cases trained {', '.join(unknown)} is not known here: none of those compared "
            "may be among them"
        )
    if all(len(system.runs) == 1 for system in systems):
        cautions.append(
            "one network of each: the tests tell these networks apart, not the ways to train them"
        )
    return cautions


def _shown(names: Sequence[str]) -> str:
    more = " ..." if names[NAMED:] else ""
    return ", ".join(names[:NAMED]) + more
