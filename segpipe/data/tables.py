"""Datasets as a table: CSV, TSV or JSON with a row per case."""

import csv
import difflib
import re
import reprlib
from pathlib import Path
from typing import Any

from segpipe.data.cases import Case, Dataset, check_files, read_json, stem
from segpipe.errors import ConfigError, DataError

COLUMNS = ("case", "image", "label", "split", "group")
SPLITS = ("train", "val", "test")

Row = dict[str, Any]


def read_table(root: Path) -> Dataset:
    """The cases of a table; `root` is the file, or a folder that holds just one.

    Raises:
        ConfigError: if there is no such file, or more than one.
        DataError: if the table is not in order.
    """
    file = _only_table(root)
    rows = _json_rows(file) if file.suffix == ".json" else _csv_rows(file)
    if not rows:
        raise DataError(f"{file}: has no rows")
    for column in rows[0]:
        near = difflib.get_close_matches(column.lower(), COLUMNS, 1, 0.75)
        if near and column not in COLUMNS:
            raise DataError(f"{file}: has a column {column}; did you mean {near[0]}?")
    named = [
        (_split(file, number, row), _table_case(file, number, row))
        for number, row in enumerate(rows, 2)
    ]
    check_files(file, [case for _, case in named])
    cases = sorted((case for split, case in named if split != "test"), key=lambda case: case.name)
    test = sorted((case for split, case in named if split == "test"), key=lambda case: case.name)
    if not cases:
        raise DataError(
            f"{file}: all {len(rows)} rows have the split test; there is nothing to train on"
        )
    counts = {len(case.images): case.name for case in (*cases, *test)}
    if len(counts) > 1:
        found = ", ".join(f"{count} in {name}" for count, name in sorted(counts.items()))
        raise DataError(
            f"{file}: the cases have different numbers of images: {found}; each needs the same channels"
        )
    return Dataset(file.stem, tuple(cases), tuple(test), None, ("image",))


def _only_table(root: Path) -> Path:
    if root.is_file():
        return root
    endings = (".csv", ".tsv", ".json")
    tables = sorted(
        path for path in root.iterdir() if path.suffix in endings and path.name[0] != "."
    )
    if len(tables) != 1:
        raise ConfigError(
            f"data.root={root}: holds {len(tables)} tables (*.csv, *.tsv, *.json); name the one to use"
        )
    return tables[0]


def _split(file: Path, line: int, row: Row) -> str | None:
    split = row.get("split") or None
    if split is not None and split not in SPLITS:
        raise DataError(
            f"{file}: row {line} has the split {split!r}; it must be {', '.join(SPLITS)} or empty"
        )
    return split


def read_inputs(file: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """The names and images of a table's rows; all other columns are passed over.

    Raises:
        DataError: if the table is not in order.
    """
    rows = _json_rows(file) if file.suffix == ".json" else _csv_rows(file)
    return [_images(file, number, row) for number, row in enumerate(rows, 2)]


def _images(file: Path, line: int, row: Row) -> tuple[str, tuple[Path, ...]]:
    numbered = [
        row[column] for column in sorted(row) if re.fullmatch(r"image_\d+", column) and row[column]
    ]
    images = row.get("image") or numbered
    paths = images.split(";") if isinstance(images, str) else images
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise DataError(
            f"{file}: row {line}: image and label must be file names, got {reprlib.repr(row)}"
        )
    if not paths:
        raise DataError(f"{file}: row {line} has no image; each row needs one")
    files = tuple(file.parent / path.strip() for path in paths)
    return str(row.get("case") or re.sub(r"_\d{4}$", "", stem(files[0]))), files


def _table_case(file: Path, line: int, row: Row) -> Case:
    split, label = _split(file, line, row), row.get("label") or None
    if not isinstance(label, str | None):
        raise DataError(
            f"{file}: row {line}: image and label must be file names, got {reprlib.repr(row)}"
        )
    name, files = _images(file, line, row)
    if not (label or split == "test"):
        raise DataError(f"{file}: row {line} has no label; each row needs an image and a label")
    group = str(row["group"]) if row.get("group") not in (None, "") else None
    return Case(
        name,
        files,
        file.parent / label.strip() if label else None,
        group,
        None if split == "test" else split,
    )


def _csv_rows(file: Path) -> list[Row]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error}); save it as CSV in UTF-8") from None
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows: list[Row] = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            wanted = header.count(delimiter) + 1
            raise DataError(
                f"{file}: row {number} has not the {wanted} fields of the header: {reprlib.repr(row)}"
            )
    return rows


def _json_rows(file: Path) -> list[Row]:
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: must be a list of objects, each with image and label")
    return rows
