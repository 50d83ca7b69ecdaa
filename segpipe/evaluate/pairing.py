"""Masks and truths that belong together: by their names, by a pattern, or by a table."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.config.evaluate import CALL, Evaluate
from segpipe.data.layouts.base import content_hint, list_folder
from segpipe.data.layouts.pattern import CASE, find_by_pattern
from segpipe.data.tables import TABLES, file_named, raw_rows
from segpipe.errors import ConfigError, DataError
from segpipe.io.formats import format_of, stem
from segpipe.text import count, name_fault, visible

SUFFIX = re.compile(
    r"[_.-](0000|d?seg|segmentation|labels?|mask|pred|prediction|output|gt|ground_?truth|truth|"
    r"manual)$",
    re.IGNORECASE,
)
COLUMNS = {  # of a table, by the key that takes their files; the first that is there counts
    "prediction": ("prediction", "mask"),
    "truth": ("truth", "label"),
    "images": ("image", "image_0"),
}
NAMED = 3  # names that a message holds at most
Files = dict[str, list[Path]]  # name of a case -> files; more than one is a fault


@dataclass(frozen=True)
class Pair:
    """A mask and the truth that it is scored against.

    Attributes:
        name: the name of the case.
        prediction: the mask; None where there is none.
        truth: the label map; None where there is none.
        image: the scan, where it is known.
        problem: the reason why it cannot be scored; empty where it can be tried.
    """

    name: str
    prediction: Path | None
    truth: Path | None
    image: Path | None = None
    problem: str = ""


@dataclass(frozen=True)
class Pairing:
    """What was found of masks and truths.

    Attributes:
        pairs: the pairs that are to be scored, by name.
        without_prediction: names of the truths that have no mask.
        without_truth: names of the masks that have no truth.
    """

    pairs: Sequence[Pair]
    without_prediction: Sequence[str]
    without_truth: Sequence[str]


def find_pairs(options: Evaluate) -> Pairing:
    """Return the masks and truths that belong together.

    Raises:
        ConfigError: if there are no masks or truths, or none belong together.
    """
    assert options.prediction is not None
    predictions = find_files("prediction", options.prediction)
    truths = _find_truths(options)
    if options.truth is not None and _are_files(options.prediction, options.truth):
        predictions = dict(zip(truths, predictions.values(), strict=True))  # whatever their names
    images = _find_images(options)
    pairs: list[Pair] = []
    without_prediction: list[str] = []
    without_truth: list[str] = []
    for name, mask, truth in match_names(predictions, truths):
        if truth is None:
            without_truth.append(name)
            continue
        if mask is None:
            without_prediction.append(name)
            if options.missing == "name":
                continue
        files = predictions[mask] if mask is not None else []
        pairs.append(_pair(name, files, truths[truth], _of_name(name, images)))
    if all(pair.prediction is None for pair in pairs):
        raise ConfigError(
            f"no mask has the name of a truth: masks {_shown(predictions)}; truths "
            f"{_shown(truths)}; name them alike, or in a table of the columns case, prediction and "
            "truth"
        )
    return Pairing(pairs, without_prediction, without_truth)


def _find_truths(options: Evaluate) -> Files:
    if options.truth is not None:
        return find_files("truth", options.truth)
    assert options.prediction is not None
    if not _is_table(options.prediction):
        raise ConfigError(f"truth is missing: {CALL}")
    return find_files("truth", options.prediction)


def _find_images(options: Evaluate) -> Files:
    """Return the scans; of a table that names none, none."""
    if options.images is not None:
        return find_files("images", options.images)
    for given in (options.prediction, options.truth):
        if given is not None and _is_table(given):
            rows = raw_rows(Path(given))
            if _column(rows[0][1], "images") is not None:
                return find_files("images", given)
    return {}


def _are_files(prediction: str, truth: str) -> bool:
    """Return whether a user names one mask and one truth."""
    given = (prediction, truth)
    return all(os.path.isfile(one) and not _is_table(one) and CASE not in one for one in given)


def _is_table(given: str) -> bool:
    return Path(given).suffix.lower() in TABLES


def find_files(key: str, given: str) -> Files:
    """Return the files that a user names by a folder, a file, a pattern or a table.

    Args:
        key: `prediction`, `truth` or `images`.
        given: its value.

    Raises:
        ConfigError: if there are none.
    """
    if CASE in given:
        found = find_by_pattern(key, *_split_pattern(given))
        return {name: [path] for name, path in found.items()}
    path = Path(given)
    if os.path.isdir(path):
        return _in_folder(key, path)
    if not os.path.exists(path):
        raise ConfigError(f"{key}={given}: no such file or folder")
    if not _is_table(given):
        return {plain_name(stem(path)): [path]}
    try:
        return _in_table(key, path)
    except DataError as error:
        raise ConfigError(f"{key}={given}: {error}") from None


def _split_pattern(given: str) -> tuple[Path, str]:
    """Return the folder in front of the first part with a wildcard, and the pattern below it."""
    parts = Path(given).parts
    first = next(index for index, part in enumerate(parts) if "{" in part or "*" in part)
    return Path(*parts[:first]), "/".join(parts[first:])


def _in_folder(key: str, folder: Path) -> Files:
    found: Files = {}
    for path in list_folder(folder):
        if not os.path.isdir(path) and format_of(path) is not None:
            found.setdefault(stem(path), []).append(path)
    if not found:
        raise ConfigError(
            f"{key}={folder}: holds no label maps{content_hint(folder)}; of files in folders "
            f"inside it give a pattern, as '{folder}/{CASE}/NAME.nii.gz'"
        )
    return found


def _in_table(key: str, file: Path) -> Files:
    """Return the files of a table's column, by the names of the cases.

    Raises:
        DataError: if the table cannot be read, or lacks the column.
    """
    found: Files = {}
    rows = raw_rows(file)
    column = _column(rows[0][1], key)
    if column is None:
        raise DataError(
            f"{file}: has no column {' or '.join(COLUMNS[key])}, but {', '.join(rows[0][1])}"
        )
    for number, values in rows:
        if not values.get(column):
            continue
        if not isinstance(values[column], str):
            raise DataError(f"{file}: row {number}: {column} must be a file name")
        path = file_named(file.parent, values[column])
        name = str(_value(values, "case") or plain_name(stem(path)))
        found.setdefault(name, []).append(path)
    return found


def _column(row: Mapping[str, Any], key: str) -> str | None:
    """Return the column of a table that holds the files of a key; None where there is none."""
    folded = {column.strip().casefold(): column for column in row}
    for name in COLUMNS[key]:
        if name in folded:
            return folded[name]
    return None


def _value(row: Mapping[str, Any], name: str) -> Any:
    for column, value in row.items():
        if column.strip().casefold() == name:
            return value
    return None


def plain_name(name: str) -> str:
    """Return a name without the endings that tell a mask or a truth from its scan."""
    shorter = SUFFIX.sub("", name)
    return name if shorter == name or not shorter else plain_name(shorter)


def match_names(
    predictions: Iterable[str], truths: Iterable[str]
) -> list[tuple[str, str | None, str | None]]:
    """Return name, mask and truth of each case, sorted; None for a mask or truth that is missing.

    Names that are equal belong together; of the others, those that are equal without the usual
    endings, where there is one of each.
    """
    left = set(predictions)
    right = set(truths)
    matched = [(name, name, name) for name in left & right]
    lonely_left = _by_plain_name(left - right)
    lonely_right = _by_plain_name(right - left)
    found: list[tuple[str, str | None, str | None]] = [*matched]
    for name in {*lonely_left, *lonely_right}:
        masks = lonely_left.get(name, [])
        labels = lonely_right.get(name, [])
        if len(masks) == len(labels) == 1:
            found.append((name, masks[0], labels[0]))
        else:
            found += [(mask, mask, None) for mask in masks]
            found += [(label, None, label) for label in labels]
    return sorted(found, key=lambda entry: entry[0])


def _by_plain_name(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(plain_name(name), []).append(name)
    return found


def _of_name(name: str, files: Files) -> Path | None:
    """Return the file of a name, or of one that differs in the usual endings."""
    same = files.get(name) or files.get(f"{name}_0000")
    if same is None:
        near = [key for key in files if plain_name(key) == plain_name(name)]
        same = files[near[0]] if len(near) == 1 else None
    return same[0] if same else None


def _pair(name: str, masks: list[Path], truths: list[Path], image: Path | None) -> Pair:
    """Return a pair, with its problem where a file or the name is not fit."""
    mask = masks[0] if masks else None
    problem = ""
    for files in (masks, truths):
        if len(files) > 1:
            names = ", ".join(path.name for path in files[:NAMED])
            problem = f"{name}: {count(len(files), 'file')} of this name ({names}); keep one"
    fault = name_fault(name)
    if fault:
        problem = f"{visible(name)}: its name {fault}; rename it"
    return Pair(name, mask, truths[0], image, problem)


def _shown(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - NAMED} more" if known[NAMED:] else ""
    return ", ".join(map(visible, known[:NAMED])) + more
