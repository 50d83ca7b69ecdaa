"""The names that BIDS gives the ids of label maps, by tables such as `dseg.tsv`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from segpipe.data.layouts.base import list_folder
from segpipe.data.tables import raw_rows
from segpipe.errors import DataError
from segpipe.io.formats import stem
from segpipe.text import unwritable

INDEX, NAME = "index", "name"


def names_of(labels: Sequence[Path], root: Path) -> dict[int, str]:
    """Return id -> name of the ids that tables beside label maps, or above them, name.

    A table is that of a label map where it ends as the map's name does, as in `dseg`, and has no
    other entities than the map; the nearest folder and the most entities come first.

    Args:
        labels: the labels of the cases.
        root: the root of the dataset, above which no table is looked for.

    Raises:
        DataError: if a table cannot be read, or two tables name an id differently.
    """
    names: dict[int, str] = {}
    tables: set[Path] = set()
    for label in labels:
        table = next(_tables_of(label, root), None)
        if table is None or table in tables:
            continue
        tables.add(table)
        for number, name in _read(table).items():
            if names.setdefault(number, name) != name:
                raise DataError(
                    f"{table}: names the id {number} {name!r}, and another table "
                    f"{names[number]!r}; one name must hold for all cases"
                )
    return names


def _tables_of(label: Path, root: Path) -> Iterator[Path]:
    """Yield the tables that are those of a label map, the nearest first."""
    *entities, suffix = stem(label).split("_")
    for folder in label.parents:
        found = []
        for path in list_folder(folder):
            words = path.stem.split("_")
            is_table = path.suffix.lower() == ".tsv" and os.path.isfile(path)
            if is_table and words[-1] == suffix and set(words[:-1]) <= set(entities):
                found.append((-len(words), path))
        for _, path in sorted(found):
            yield path
        if folder == root:
            return


def _read(table: Path) -> dict[int, str]:
    """Return id -> name of a table; without the names that a label cannot have.

    Raises:
        DataError: if it has no columns `index` and `name`, or an index is no whole number.
    """
    names: dict[int, str] = {}
    for row, values in raw_rows(table):
        if not {INDEX, NAME} <= values.keys():
            raise DataError(f"{table}: has no columns {INDEX} and {NAME}, which name label ids")
        try:
            number = int(values[INDEX])
        except ValueError:
            given = ascii(values[INDEX])[:40]
            raise DataError(f"{table}: row {row} has the index {given}") from None
        name = values[NAME].strip()
        if not unwritable(name):
            names[number] = name
    return names
