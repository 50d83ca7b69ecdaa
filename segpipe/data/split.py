"""Which cases train and which validate."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.data.cases import Case, name_of
from segpipe.errors import ConfigError
from segpipe.files import write_json
from segpipe.stored import SCHEMA
from segpipe.text import closest

NNUNET_SEED = 12345
RANDOM_SEED = 0  # not the run's: runs that differ in their seed validate the same cases
NAMED = 3  # cases or groups that a message names at most


@dataclass(frozen=True)
class Split:
    """Names of the cases that train and of those that validate."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def split_cases(
    cases: Sequence[Case], *, file: Path | None, folds: int, fold: int | None, fraction: float
) -> Split:
    """Split cases by a file, else by the cases' own split, else into folds, else at random.

    The same arguments always give the same split. Folds are those of nnU-Net: scikit-learn's
    `KFold(folds, shuffle=True, random_state=12345)` over the sorted case names, or over the sorted
    groups where cases have them. Cases that a split file does not name are left out; those that a
    table's split column leaves empty train.

    Args:
        cases: cases with labels.
        file: JSON of `{"train": [...], "val": [...]}`, or a list of such of which `fold` picks one.
        folds: number of folds.
        fold: the fold that validates, from 0.
        fraction: share of the cases, or of the groups, that validates where no fold is given.

    Raises:
        ConfigError: if the split cannot be made, or a case or a group would be on both sides.
    """
    if file is not None:
        source = f"data.split={file}"
        split = _read_split(file, fold, list(map(name_of, cases)))
    elif any(case.split for case in cases):
        source = "the table's split column"
        split = _column_split(cases, fold)
    elif fold is not None:
        source = f"data.folds={folds}"
        split = _fold_split(cases, folds, fold)
    else:
        source = f"data.fraction={fraction}"
        split = _random_split(cases, fraction)
    _check_split(source, split, cases)
    return split


def write_split(split: Split, path: Path) -> None:
    """Write a split as a file that `split_cases` reads."""
    write_json(path, {"schema": SCHEMA, **asdict(split)})


def _column_split(cases: Sequence[Case], fold: int | None) -> Split:
    if fold is not None:
        raise ConfigError("data.fold: the table has a split column; use one or the other")
    return _divide(cases, lambda case: case.split == "val")


def _fold_split(cases: Sequence[Case], folds: int, fold: int) -> Split:
    groups = _sorted_groups(cases)
    if not 2 <= folds <= len(groups):
        raise ConfigError(
            f"data.folds is {folds}; for {len(groups)} cases or groups it must be from 2 to "
            f"{len(groups)}"
        )
    if not 0 <= fold < folds:
        raise ConfigError(
            f"data.fold is {fold}; with data.folds={folds} it must be from 0 to {folds - 1}"
        )
    order = np.arange(len(groups))
    np.random.RandomState(NNUNET_SEED).shuffle(order)  # as KFold shuffles
    return _validate_on_groups(cases, groups, np.array_split(order, folds)[fold])


def _random_split(cases: Sequence[Case], fraction: float) -> Split:
    groups = _sorted_groups(cases)
    order = np.random.default_rng(RANDOM_SEED).permutation(len(groups))
    size = max(1, round(fraction * len(groups)))
    return _validate_on_groups(cases, groups, order[:size])


def _group_of(case: Case) -> str:
    """Return the group of a case; a case without one is a group of its own."""
    return case.group or case.name


def _sorted_groups(cases: Sequence[Case]) -> list[str]:
    return sorted(set(map(_group_of, cases)))


def _validate_on_groups(cases: Sequence[Case], groups: list[str], chosen: np.ndarray) -> Split:
    val = {groups[index] for index in chosen}
    return _divide(cases, lambda case: _group_of(case) in val)


def _divide(cases: Sequence[Case], validates: Callable[[Case], bool]) -> Split:
    """Return the split in which these cases validate and all others train."""
    train = []
    val = []
    for case in sorted(cases, key=name_of):
        side = val if validates(case) else train
        side.append(case.name)
    return Split(tuple(train), tuple(val))


def _read_split(file: Path, fold: int | None, names: Sequence[str]) -> Split:
    content = _read_split_entry(file, fold)
    sides = []
    for side in ("train", "val"):
        case_names = content.get(side) if isinstance(content, dict) else None
        if not isinstance(case_names, list):
            raise ConfigError(
                f'data.split={file}: must be {{"train": [...], "val": [...]}} or a list of such'
            )
        sides.append(tuple(map(str, case_names)))
    split = Split(*sides)
    _check_names_known(file, split, names)
    _check_names_unique(file, split)
    return split


def _check_names_known(file: Path, split: Split, names: Sequence[str]) -> None:
    known = set(names)
    for name in (*split.train, *split.val):
        if name not in known:
            similar = closest(name, names, 0.3)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            raise ConfigError(f"data.split={file}: no case is called {name}{hint}")


def _check_names_unique(file: Path, split: Split) -> None:
    for side in (split.train, split.val):
        for name, count in Counter(side).most_common(1):
            if count > 1:
                raise ConfigError(
                    f"data.split={file}: names {name} {count} times; each case must be named once"
                )


def _read_split_entry(file: Path, fold: int | None) -> Any:
    """Return the content of a split file; of a list, the entry that `fold` picks."""
    if not file.is_file():
        raise ConfigError(f"data.split={file}: no such file")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"data.split={file}: cannot be read as JSON ({error})") from None
    if not isinstance(content, list):
        return content
    if not content:
        raise ConfigError(f"data.split={file}: holds no split")
    if fold is None or not 0 <= fold < len(content):
        raise ConfigError(
            f"data.split={file}: holds {len(content)} splits; pick one by data.fold=0 to "
            f"{len(content) - 1}"
        )
    return content[fold]


def _check_split(source: str, split: Split, cases: Sequence[Case]) -> None:
    """Check that each side has a case, and that no case or group is on both sides."""
    group_of = {case.name: _group_of(case) for case in cases}
    for side, names in asdict(split).items():
        if not names:
            raise ConfigError(
                f"{source}: leaves no case to {side} of {len(cases)} cases in "
                f"{len(set(group_of.values()))} groups; each side needs one or more"
            )
    train = {group_of[name] for name in split.train}
    val = {group_of[name] for name in split.val}
    both = sorted(train & val)
    if both:
        raise ConfigError(
            f"{source}: has {', '.join(both[:NAMED])} on both sides; each case or group must be on "
            "one"
        )
