"""Files that are either complete or absent, and names for their content."""

import csv
import hashlib
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from segpipe.errors import ConfigError, DataError
from segpipe.processes import HOST, is_running
from segpipe.text import first_line, visible

FORMULA = re.compile(r"'*[=+\-@]")  # how cells begin that a spreadsheet would compute
PART = ".segpipe-part-"  # how the names of unfinished files begin, and those of nobody else
ENDING = 20  # characters of a name that its unfinished file keeps
DIGEST = re.compile(r"[0-9a-f]{32}")  # what `digest` returns
_parts = itertools.count()


def digest(files: Sequence[Path], *settings: object) -> str:
    """Return a name for the content of these files together with these plain values.

    Args:
        files: the files; of a folder, all files directly inside it count.
        settings: values that JSON can hold.

    Raises:
        DataError: if a file cannot be read.
    """
    found = hashlib.sha256(json.dumps(settings).encode())
    inside = [sorted(path.iterdir()) if path.is_dir() else [path] for path in files]
    for path in itertools.chain(*inside):
        try:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return found.hexdigest()[:32]


def is_digest(name: str) -> bool:
    """Return whether a name is such as `digest` gives."""
    return DIGEST.fullmatch(name) is not None


def part_name(name: str) -> str:
    """Return the name of an unfinished file, which says what machine and process writes it."""
    return f"{PART}{HOST}-{os.getpid()}-{next(_parts)}-{name[-ENDING:]}"


def remove_abandoned_parts(folder: Path) -> None:
    """Remove the half-written files of processes of this machine that were killed.

    Those of running processes and of other machines stay, and so does every file of the user.
    """
    beginning = f"{PART}{HOST}-"
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            process = name.removeprefix(beginning).partition("-")[0]
            if not name.startswith(beginning) or not process.isdecimal():
                continue
            if not is_running(int(process)):
                _remove(Path(parent, name))


def _remove(part: Path) -> None:
    """Remove a file, or a folder, unless another process has just done so."""
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    elif part.is_file():
        part.unlink(missing_ok=True)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to `path` when the block ends well.

    No reader ever sees half of the file, and nothing is left behind where the block raises.
    """
    part = path.with_name(part_name(path.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path`; rename it to `path` when the block ends well.

    Where the block raises, nothing is left behind. `path` must not be there, or be an empty folder.
    """
    part = path.with_name(part_name(path.name))
    part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder for what the user asks for, if it is not there, and check that it takes files.

    Raises:
        ConfigError: if it cannot be made, is a file, or is read-only.
    """
    probe = path / part_name("probe")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written to ({error.strerror}); choose another folder"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    write_lines(path, [text])


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    with atomic(path) as part:
        part.write_bytes(content)


def write_lines(path: Path, texts: Iterable[str]) -> None:
    """Write texts one after the other into a file, atomically and without holding them all.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    try:
        with (
            atomic(path) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.writelines(texts)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); make room, or choose another folder"
        ) from None


def write_json(path: Path, content: object) -> None:
    """Write plain values as a JSON file atomically.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file atomically.

    A text that a spreadsheet would compute, such as `=1+1`, begins with `'`, which `read_table`
    takes away; characters that nobody sees are spelt out.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        table.writerow(map(_cell, row))
    write_text(path, text.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of `write_table`, by column.

    Raises:
        DataError: if it cannot be read, or is not such a table.
    """
    rows: list[dict[str, str]] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = list(map(_read_cell, next(lines, [])))
            for cells in lines:
                rows.append(dict(zip(header, map(_read_cell, cells), strict=True)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: is not a table as it was written ({first_line(error)})") from None
    return rows


def _cell(value: object) -> object:
    """Return what is written of a cell."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def _read_cell(text: str) -> str:
    """Return the text of which `_cell` has made this one."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_rows(path: Path, rows: Sequence[Any], kind: type | None = None) -> None:
    """Write dataclasses as a CSV file atomically, one line each and one column per field.

    Args:
        path: the path of the CSV file.
        rows: all of one kind.
        kind: the kind of the rows; needed where there may be none.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    header = [field.name for field in fields(kind or type(rows[0]))]
    write_table(path, header, [list(asdict(row).values()) for row in rows])
