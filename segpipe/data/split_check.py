"""What a split makes of a dataset: labels that a side lacks, patients on both sides."""

from collections.abc import Sequence

from segpipe.data.grouping import suggest_groups
from segpipe.data.inspected_case import Finding, InspectedCase
from segpipe.text import count

ALL = "(all cases)"  # in place of a case's name
NAMED = 3  # groups that a message names at most
OTHER_SPLIT = "choose another data.fold, data.fraction or data.split"


def check_split(
    train: Sequence[InspectedCase],
    val: Sequence[InspectedCase],
    labels: dict[str, int] | None,
) -> list[Finding]:
    """Return what is wrong with a split, all of it known before the training.

    Args:
        train: cases that train.
        val: cases that validate.
        labels: name -> id on disk, as declared; None: those that the cases have.
    """
    findings = []
    all_read = all(inspected.usable for inspected in (*train, *val))
    for number, name in _named_ids([*train, *val], labels).items():
        in_train = _cases_with(number, train)
        in_val = _cases_with(number, val)
        if not in_train and not in_val and not all_read:
            continue  # a case whose labels cannot be read may have it
        if not in_train:
            findings.append(_not_learnt(name, in_val, len(train), len(val)))
        elif not in_val:
            findings.append(_not_scored(name, in_train, len(val)))
    return [*findings, *_check_groups(train, val)]


def _named_ids(cases: Sequence[InspectedCase], labels: dict[str, int] | None) -> dict[int, str]:
    """Return the ids without the background's, each with what a message calls it."""
    named: dict[int, str] = {}
    if labels is not None:
        for name, number in labels.items():
            named[number] = f"the label {name} ({number})"
    else:
        ids: set[int] = set()
        for inspected in cases:
            ids.update(map(int, inspected.ids))
        for number in sorted(ids):
            named[number] = f"the label {number}"
    named.pop(0, None)
    return named


def _cases_with(number: int, cases: Sequence[InspectedCase]) -> list[str]:
    """Return the names of the cases that have a label."""
    return _names([inspected for inspected in cases if number in inspected.ids])


def _names(cases: Sequence[InspectedCase]) -> list[str]:
    return [inspected.case.name for inspected in cases]


def _not_learnt(name: str, in_val: Sequence[str], train: int, val: int) -> Finding:
    """Return the finding of a label that no training case has."""
    if not in_val:
        problem = (
            f"{name} is declared, but none of {count(train, 'training case')} and "
            f"{count(val, 'validation case')} has it"
        )
        return Finding(ALL, "label", problem, "look for the cases that have it, or undeclare it")
    problem = (
        f"{name} is in {count(len(in_val), 'validation case')}, such as {in_val[0]}, but in none "
        f"of {count(train, 'training case')}: it cannot be learnt"
    )
    return Finding(ALL, "label", problem, OTHER_SPLIT)


def _not_scored(name: str, in_train: Sequence[str], val: int) -> Finding:
    """Return the finding of a label that no validation case has."""
    problem = (
        f"{name} is in {count(len(in_train), 'training case')}, such as {in_train[0]}, but in "
        f"none of {count(val, 'validation case')}: only where it is found by mistake does it count"
    )
    return Finding(ALL, "label", problem, OTHER_SPLIT)


def _check_groups(train: Sequence[InspectedCase], val: Sequence[InspectedCase]) -> list[Finding]:
    """Return a finding where names suggest patients, and some are on both sides."""
    if any(inspected.case.group for inspected in (*train, *val)):
        return []
    train_names = _names(train)
    val_names = _names(val)
    suggestion = suggest_groups([*train_names, *val_names])
    if suggestion is None:
        return []
    divided = suggestion.divided(set(train_names), set(val_names))
    if not divided:
        return []
    first = suggestion.groups[divided[0]]
    named = ", ".join(first[:NAMED])
    return [
        Finding(
            ALL,
            "group",
            f"the names suggest {len(suggestion.groups)} patients of several cases, such as "
            f"{divided[0]} ({named}), and {len(divided)} of them both train and validate",
            f"if so, give data.group='{suggestion.pattern}'; if not, nothing",
        )
    ]
