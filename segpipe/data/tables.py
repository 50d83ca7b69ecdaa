"""Tables of cases: CSV, TSV or JSON files with a row per case, as people and Excel write them."""

import codecs
import csv
import io
import logging
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.data.cases import Case, read_json
from segpipe.errors import DataError
from segpipe.io.formats import stem

log = logging.getLogger("segpipe")
TABLES = (".csv", ".tsv", ".json")
DELIMITERS = ",;\t"
COLUMNS = re.compile(r"case|image|image_\d+|label|split|group")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Columns = Mapping[str, str] | None


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        file: the table, for messages; file names in it are relative to its folder.
        number: the number of the row, the header being row 1.
        values: the values of the row, by column.
    """

    file: Path
    number: int
    values: dict[str, Any]

    def images(self) -> tuple[Path, ...]:
        """Return the image files: column `image`, else columns `image_0`, `image_1` and so on.

        Raises:
            DataError: if there is none, or a value is not a file name.
        """
        given = self.values.get("image") or self._numbered_images()
        names = self._file_names(given)
        if not names:
            raise DataError(f"{self.file}: row {self.number} has no image; each row needs one")
        return tuple(file_named(self.file.parent, name) for name in names)

    def label(self) -> Path | None:
        """Return the label map of column `label`; None where there is none.

        Raises:
            DataError: if the value is not a file name.
        """
        given = self.values.get("label") or None
        if given is None:
            return None
        if not isinstance(given, str):
            raise self._no_file_names()
        return file_named(self.file.parent, given)

    def case_name(self, images: tuple[Path, ...]) -> str:
        """Return the value of column `case`, else the first image's name without `_0000`."""
        return str(self.values.get("case") or stem(images[0]).removesuffix("_0000"))

    def _numbered_images(self) -> list[Any]:
        images: dict[int, Any] = {}
        for column, value in self.values.items():
            numbered = re.fullmatch(r"image_(\d+)", column)
            if numbered and value:
                images[int(numbered[1])] = value
        return [images[number] for number in sorted(images)]

    def _file_names(self, given: object) -> list[str]:
        if isinstance(given, str):
            # several files of one cell are separated by semicolons, which a name may hold as well
            is_one = os.path.exists(file_named(self.file.parent, given))
            return [given] if is_one else given.split(";")
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise self._no_file_names()
        return given

    def _no_file_names(self) -> DataError:
        return DataError(
            f"{self.file}: row {self.number}: image and label must be file names, got "
            f"{reprlib.repr(self.values)}"
        )


def file_named(folder: Path, name: str) -> Path:
    """Return the file that a table or a list in this folder names.

    `~` is the home folder; backslashes separate folders, as on Windows, unless there is a file
    whose name holds them.

    Raises:
        DataError: if no file can have this name.
    """
    name = name.strip()
    if "\0" in name:
        raise DataError(f"{folder}: holds no file of the name {reprlib.repr(name)}")
    try:
        path = folder / Path(name).expanduser()
    except RuntimeError:  # `~somebody` whom this machine does not know
        path = folder / name
    if "\\" in name and not os.path.exists(path):  # of a Path a name that is too long is an error
        return folder / name.replace("\\", "/")
    return path


def find_tables(folder: Path) -> list[Path]:
    """Return the tables that a folder holds, sorted; hidden files and `dataset.json` are none."""
    tables = []
    for path in sorted(folder.iterdir()):
        is_hidden = path.name.startswith(".")
        if path.suffix.lower() in TABLES and path.name != "dataset.json" and not is_hidden:
            tables.append(path)
    return tables


def read_rows(file: Path, columns: Columns = None) -> list[TableRow]:
    """Return the rows of a table; there is at least one.

    Columns are `case`, `image` or `image_0`, `image_1` ..., `label`, `split` and `group`, upper and
    lower case alike; others stay as they are.

    Args:
        file: the table.
        columns: the names that the table has for some of these, as `{"image": "T1 scan"}`.

    Raises:
        DataError: if the file is not such a table, has no rows, or lacks a column.
    """
    rows = raw_rows(file)
    present: dict[str, None] = {}
    for _, values in rows:
        present |= dict.fromkeys(values)
    names = _column_names(file, list(present), columns or {})
    table = []
    for number, values in rows:
        named = {names[column]: value for column, value in values.items()}
        table.append(TableRow(file, number, named))
    return table


def raw_rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a table with their numbers and the columns as they are written.

    Raises:
        DataError: if the file is not a table, or has no rows.
    """
    rows = _json_rows(file) if file.suffix.lower() == ".json" else _csv_rows(file)
    if not rows:
        raise DataError(f"{file}: has no rows")
    return rows


def read_inputs(file: Path, columns: Columns = None) -> list[Case]:
    """Return each row's name, images and, where there is one, label; other columns are ignored.

    Raises:
        DataError: if the file is not such a table.
    """
    inputs = []
    for row in read_rows(file, columns):
        images = row.images()
        inputs.append(Case(row.case_name(images), images, row.label()))
    return inputs


def _column_names(file: Path, present: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return for each column of a table the name by which it is read.

    Raises:
        DataError: if a column that was named is not there, or the images have none.
    """
    folded: dict[str, str] = {}
    for column in present:
        folded.setdefault(column.strip().casefold(), column)
    names = {column: column for column in present}
    for key, column in folded.items():
        if COLUMNS.fullmatch(key) and key not in given:
            names[column] = key
    for key, column in given.items():
        found = column if column in present else folded.get(column.strip().casefold())
        if not COLUMNS.fullmatch(key) or found is None:
            raise DataError(
                f"{file}: columns={{{key}:{column}}} needs one of case, image, image_0, image_1 "
                f"..., label, split and group, and a column of the table ({_shown(present)})"
            )
        names[found] = key
    if not any(name.startswith("image") for name in names.values()):
        raise DataError(
            f"{file}: has no column image, but {_shown(present)}; say which is which, as "
            "columns={case:Subject,image:Scan,label:Mask} (data.columns of a training)"
        )
    return names


def _shown(names: Sequence[str]) -> str:
    shown = [name if name.isprintable() else repr(name) for name in names[:12]]
    return ", ".join(shown) + (" ..." if len(names) > 12 else "")


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, UTF-16 with its mark, or, with a warning, Windows' Latin.

    Raises:
        DataError: if it cannot be read, or is no text.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        text = content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        log.warning("%s: is not UTF-8, and read as Latin (Windows-1252); save it as UTF-8", file)
    if "\0" in text or "\ufffd" in text:
        raise DataError(f"{file}: is not a text file; save it as UTF-8")
    return text


def _csv_rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the lines of a CSV file that are not empty, each with its number.

    Raises:
        DataError: if it is not such a file.
    """
    lines = read_text(file).lstrip("\n\r").split("\n", 1)
    first = lines[0].strip()
    if first.lower() in [f"sep={mark}" for mark in DELIMITERS]:  # as Excel understands it
        delimiter = first[-1]
        lines = lines[1:]
    else:
        delimiter = max(DELIMITERS, key=first.count)
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as a table ({error})") from None
    if not rows:
        return []
    header = _without_empty_end(rows[0])
    _check_header(file, header)
    table = []
    for number, fields in enumerate(rows[1:], start=2):
        if any(fields):
            table.append((number, _fields_by_column(file, number, header, fields)))
    return table


def _without_empty_end(fields: list[str]) -> list[str]:
    """Return the fields of a line without the empty ones that Excel adds at its end."""
    while fields and not fields[-1].strip():
        fields = fields[:-1]
    return fields


def _check_header(file: Path, header: Sequence[str]) -> None:
    names = [column.strip().casefold() for column in header]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{file}: has {names.count(name)} columns of the name {name!r}")


def _fields_by_column(
    file: Path, number: int, header: Sequence[str], fields: list[str]
) -> dict[str, Any]:
    beyond = _without_empty_end(fields[len(header) :])
    if len(fields) < len(header) or beyond:
        raise DataError(
            f"{file}: row {number} does not have the {len(header)} fields of the header: "
            f"{reprlib.repr(fields)}"
        )
    return dict(zip(header, fields, strict=False))


def _json_rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: must be a list of objects, each with image and label")
    return list(enumerate(rows, start=2))
