"""Datasets as a table: CSV, TSV or JSON with a row per case."""

import csv
import difflib
import re
from pathlib import Path
from typing import Any

from segpipe.data.cases import Case, Dataset, check_files, read_json, stem
from segpipe.errors import ConfigError, DataError

COLUMNS = ("case", "image", "label", "split", "group")


def read_table(root: Path) -> Dataset:
    """The cases of a table; `root` is the file, or a folder that holds just one.

    Raises:
        ConfigError: if there is no such file, or more than one.
        DataError: if the table is not in order.
    """
    tables = (
        [root]
        if root.is_file()
        else sorted(path for path in root.iterdir() if path.suffix in (".csv", ".tsv", ".json"))
    )
    if len(tables) != 1:
        raise ConfigError(f"data.root={root}: holds {len(tables)} tables (*.csv, *.tsv, *.json); name the one to use")
    file = tables[0]
    rows = _json_rows(file) if file.suffix == ".json" else _csv_rows(file)
    if not rows:
        raise DataError(f"{file}: has no rows")
    for column in rows[0]:
        near = difflib.get_close_matches(column.lower(), COLUMNS, 1, 0.75)
        if near and column not in COLUMNS:
            raise DataError(f"{file}: has a column {column}; did you mean {near[0]}?")
    cases = [_table_case(file, number, row) for number, row in enumerate(rows, 2)]
    check_files(file, cases)
    return Dataset(file.stem, tuple(sorted(cases, key=lambda one: one.name)), (), None, ("image",))


def _table_case(file: Path, line: int, row: dict[str, Any]) -> Case:
    numbered = [row[column] for column in sorted(row) if re.fullmatch(r"image_\d+", column or "") and row[column]]
    images = row.get("image") or numbered
    paths = images.split(";") if isinstance(images, str) else list(images or [])
    if not paths or not row.get("label"):
        raise DataError(
            f"{file}: row {line} has no {'label' if paths else 'image'}; each row needs an image and a label"
        )
    split = row.get("split") or None
    if split not in (None, "train", "val"):
        raise DataError(f"{file}: row {line} has the split {split!r}; it must be train, val or empty")
    images_ = tuple(file.parent / str(path).strip() for path in paths)
    name = str(row.get("case") or re.sub(r"_\d{4}$", "", stem(images_[0])))
    return Case(
        name, images_, file.parent / str(row["label"]).strip(), str(row["group"]) if row.get("group") else None, split
    )


def _csv_rows(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    return [dict(row) for row in csv.DictReader(text.splitlines(), delimiter=delimiter)]


def _json_rows(file: Path) -> list[dict[str, Any]]:
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: must be a list of objects, each with image and label")
    return rows
