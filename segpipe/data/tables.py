"""Tables of cases: CSV, TSV or JSON files with a row per case."""

import csv
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.data.cases import read_json
from segpipe.errors import DataError
from segpipe.io.formats import stem

TABLES = (".csv", ".tsv", ".json")
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        file: the table, for messages; file names in it are relative to its folder.
        number: of the row, the header being row 1.
        values: by column.
    """

    file: Path
    number: int
    values: dict[str, Any]

    def images(self) -> tuple[Path, ...]:
        """Return the image files: column `image`, else columns `image_0`, `image_1` and so on.

        Raises:
            DataError: if there is none, or a value is not a file name.
        """
        paths = self.values.get("image") or self._numbered_images()
        if isinstance(paths, str):
            paths = paths.split(";")
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise DataError(
                f"{self.file}: row {self.number}: image and label must be file names, got "
                f"{reprlib.repr(self.values)}"
            )
        if not paths:
            raise DataError(f"{self.file}: row {self.number} has no image; each row needs one")
        return tuple(self.file.parent / path.strip() for path in paths)

    def case_name(self, images: tuple[Path, ...]) -> str:
        """Return the value of column `case`, else the first image's name without `_0000`."""
        return str(self.values.get("case") or re.sub(r"_\d{4}$", "", stem(images[0])))

    def _numbered_images(self) -> list[Any]:
        images = []
        for column in sorted(self.values):
            if re.fullmatch(r"image_\d+", column) and self.values[column]:
                images.append(self.values[column])
        return images


def find_tables(folder: Path) -> list[Path]:
    """Return the tables that a folder holds, sorted; hidden files and `dataset.json` are none."""
    tables = []
    for path in sorted(folder.iterdir()):
        is_hidden = path.name.startswith(".")
        if path.suffix in TABLES and path.name != "dataset.json" and not is_hidden:
            tables.append(path)
    return tables


def read_rows(file: Path) -> list[TableRow]:
    """Return the rows of a table.

    Raises:
        DataError: if the file is not such a table.
    """
    rows = _json_rows(file) if file.suffix == ".json" else _csv_rows(file)
    return [TableRow(file, number, row) for number, row in enumerate(rows, start=2)]


def read_inputs(file: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """Return the case name and images of each row; other columns are ignored.

    Raises:
        DataError: if the file is not such a table.
    """
    inputs = []
    for row in read_rows(file):
        images = row.images()
        inputs.append((row.case_name(images), images))
    return inputs


def _csv_rows(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error}); save it as CSV in UTF-8") from None
    header = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    columns = header.count(delimiter) + 1
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():  # as DictReader marks too many or too few fields
            raise DataError(
                f"{file}: row {number} does not have the {columns} fields of the header: "
                f"{reprlib.repr(row)}"
            )
    return rows


def _json_rows(file: Path) -> list[dict[str, Any]]:
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: must be a list of objects, each with image and label")
    return rows
