"""Files that are whole or not there, and known by their content."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from segpipe.errors import DataError


def digest(files: Sequence[Path], *settings: object) -> str:
    """A name for what these settings, plain values, make of these files' content.

    Raises:
        DataError: if a file cannot be read.
    """
    found = hashlib.sha256(json.dumps(settings).encode())
    for path in files:
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
