"""Trouble with a file that is survived: a warning with the file's name, said once."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("segpipe")
_said: set[str] = set()
_here = threading.local()


def warn(path: Path | str, trouble: str) -> None:
    """Warn of a file: to the block of `collecting` around the call, else once to the log."""
    text = f"{path}: {trouble}"
    if text in _said and not getattr(_here, "collecting", 0):
        return
    _said.add(text)
    log.warning("%s", text)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Gather the warnings of this thread in a list instead of logging them; each once."""
    notes: list[str] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread or record.levelno != logging.WARNING:
            return True
        if record.getMessage() not in notes:
            notes.append(record.getMessage())
        return False

    log.addFilter(keep)
    _here.collecting = getattr(_here, "collecting", 0) + 1
    try:
        yield notes
    finally:
        _here.collecting -= 1
        log.removeFilter(keep)


@contextmanager
def warnings_of(library: str, path: Path) -> Iterator[None]:
    """Turn what a library logs in this thread into one warning that names the file."""
    messages: list[str] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.levelno >= logging.WARNING:
            messages.append(record.getMessage())
        return False

    logger = logging.getLogger(library)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
        if messages:
            more = f" and {len(messages) - 1} more" if len(messages) > 1 else ""
            first = " ".join(messages[0].split())
            warn(path, f"{library} read it with trouble ({first[:200]}){more}")
