"""Which cases train and which validate."""

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.data.cases import Case
from segpipe.errors import ConfigError
from segpipe.files import write_json
from segpipe.stored import SCHEMA

NNUNET_SEED = 12345
RANDOM_SEED = (
    0  # never that of the training: runs that differ in their seed validate the same cases
)


@dataclass(frozen=True)
class Split:
    """Case names on either side."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def split_cases(
    cases: Sequence[Case], *, file: Path | None, folds: int, fold: int | None, fraction: float
) -> Split:
    """The split that a file gives, else the cases' own, else the folds', else a random one, the same at each call.

    Folds are those of nnU-Net: scikit-learn's `KFold(folds, shuffle=True, random_state=12345)` over the sorted case
    names, or over the sorted groups where cases have them. Cases that a split file names on neither side are left out;
    those that a table's split column leaves empty train.

    Args:
        cases: cases with labels.
        file: JSON of `{"train": [...], "val": [...]}`, or a list of such of which `fold` picks one.
        folds: number of folds.
        fold: the fold that validates, from 0.
        fraction: share of the cases, or of the groups, that validates where no fold is given.

    Raises:
        ConfigError: if the split cannot be made, or a case or a group would stand on both sides.
    """
    if file is not None:
        source, split = f"data.split={file}", _from_file(file, fold, [case.name for case in cases])
    elif any(case.split for case in cases):
        if fold is not None:
            raise ConfigError("data.fold: the table has a split column; take away either")
        source, split = (
            "the table's split column",
            _named(cases, {case.name for case in cases if case.split == "val"}),
        )
    else:
        source = f"data.fraction={fraction}" if fold is None else f"data.folds={folds}"
        split = _drawn(cases, folds, fold, fraction)
    _check(source, split, cases)
    return split


def write_split(split: Split, path: Path) -> None:
    """Writes a split as a file that `split_cases` reads."""
    write_json(path, {"schema": SCHEMA, **asdict(split)})


def _drawn(cases: Sequence[Case], folds: int, fold: int | None, fraction: float) -> Split:
    groups = sorted({case.group or case.name for case in cases})
    if fold is not None:
        if not 2 <= folds <= len(groups):
            raise ConfigError(
                f"data.folds is {folds}; for {len(groups)} cases or groups it must be from 2 to {len(groups)}"
            )
        if not 0 <= fold < folds:
            raise ConfigError(
                f"data.fold is {fold}; with data.folds={folds} it must be from 0 to {folds - 1}"
            )
        order = np.arange(len(groups))
        np.random.RandomState(NNUNET_SEED).shuffle(order)  # as KFold shuffles
        chosen = np.array_split(order, folds)[fold]
    else:
        order = np.random.default_rng(RANDOM_SEED).permutation(len(groups))
        chosen = order[: max(1, round(fraction * len(groups)))]
    val = {groups[place] for place in chosen}
    return _named(cases, {case.name for case in cases if (case.group or case.name) in val})


def _named(cases: Sequence[Case], val: set[str]) -> Split:
    names = sorted(case.name for case in cases)
    return Split(
        tuple(name for name in names if name not in val),
        tuple(name for name in names if name in val),
    )


def _from_file(file: Path, fold: int | None, names: Sequence[str]) -> Split:
    content = _chosen(file, fold)
    sides = [content.get(side) if isinstance(content, dict) else None for side in ("train", "val")]
    if not all(isinstance(side, list) for side in sides):
        raise ConfigError(
            f'data.split={file}: must be {{"train": [...], "val": [...]}} or a list of such'
        )
    split = Split(*(tuple(str(name) for name in side or ()) for side in sides))
    known = set(names)
    for name in (*split.train, *split.val):
        if name not in known:
            near = difflib.get_close_matches(name, names, 1, 0.3)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"data.split={file}: no case is called {name}{hint}")
    for side in (split.train, split.val):
        name, count = Counter(side).most_common(1)[0] if side else ("", 0)
        if count > 1:
            raise ConfigError(
                f"data.split={file}: names {name} {count} times; each case must stand once"
            )
    return split


def _chosen(file: Path, fold: int | None) -> Any:
    """The content of a split file; of a list, the entry that `fold` picks."""
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
        which = f"holds {len(content)} splits; pick one by data.fold=0 to {len(content) - 1}"
        raise ConfigError(f"data.split={file}: {which}")
    return content[fold]


def _check(source: str, split: Split, cases: Sequence[Case]) -> None:
    group = {case.name: case.group or case.name for case in cases}
    for side, names in asdict(split).items():
        if not names:
            among = f"{len(cases)} cases in {len(set(group.values()))} groups"
            raise ConfigError(
                f"{source}: leaves no case to {side} of {among}; each side needs one or more"
            )
    both = sorted({group[name] for name in split.train} & {group[name] for name in split.val})
    if both:
        raise ConfigError(
            f"{source}: has {', '.join(both[:3])} on both sides; each case or group must be on one"
        )
