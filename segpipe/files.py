"""Files that are either complete or absent, and names for their content."""

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from segpipe.errors import DataError

PART = ".part-"  # how the names of unfinished files begin


def digest(files: Sequence[Path], *settings: object) -> str:
    """Return a name for the content of these files together with these plain values.

    Args:
        files: of a folder, all files directly inside it count.
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


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to `path` when the block ends well.

    No reader ever sees half of the file, and nothing is left behind where the block raises.
    """
    part = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    try:
        with atomic(path) as part:
            part.write_text(text, encoding="utf-8")
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

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    write_text(path, text.getvalue())


def write_rows(path: Path, rows: Sequence[Any], kind: type | None = None) -> None:
    """Write dataclasses as a CSV file atomically, one line each and one column per field.

    Args:
        path: of the CSV file.
        rows: all of one kind.
        kind: of the rows; needed where there may be none.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    header = [field.name for field in fields(kind or type(rows[0]))]
    write_table(path, header, [list(asdict(row).values()) for row in rows])
