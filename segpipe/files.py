"""Files that are whole or not there, and known by their content."""

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from segpipe.errors import DataError


def digest(files: Sequence[Path], *settings: object) -> str:
    """A name for what these settings, plain values, make of these files' content, or of the files in a folder.

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


def write_text(path: Path, text: str) -> None:
    """Writes a text file under another name and renames it, so that no reader ever sees half of it.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        if part.exists():
            part.unlink()
        raise DataError(f"{path}: cannot be written ({error.strerror}); make room, or choose another folder") from None


def write_rows(path: Path, rows: Sequence[Any], kind: type | None = None) -> None:
    """Writes dataclasses as a CSV, a line each, with a column for each field.

    Args:
        path: of the CSV.
        rows: all of one kind.
        kind: of the rows, where there may be none.

    Raises:
        DataError: if it cannot be written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(kind or type(rows[0]))], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    write_text(path, text.getvalue())
