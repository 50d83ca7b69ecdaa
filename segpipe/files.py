"""Files that are whole or not there."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes a text file under another name and renames it, so that no reader ever sees half of it."""
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
