"""Trouble with a file that is survived: a warning with the file's name, said once."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SURVIVED = "survived"  # the kind of trouble that has none of its own
ALPHA_DROPPED = "its alpha channel has the same value everywhere and is left out"
log = logging.getLogger("segpipe")
_said: set[str] = set()
_here = threading.local()


@dataclass(frozen=True)
class Note:
    """A warning that was collected.

    Attributes:
        kind: the kind of the trouble, by which warnings of many files become one line.
        text: the text of the warning, with the file's name.
    """

    kind: str
    text: str


def warn(path: Path | str, trouble: str, kind: str = SURVIVED) -> None:
    """Warn of a file: to the block of `collecting` around the call, else once to the log."""
    text = f"{path}: {trouble}"
    if text in _said and not getattr(_here, "collecting", 0):
        return
    mark_said(text)
    log.warning("%s", text, extra={"kind": kind})


def mark_said(text: str) -> None:
    """Say a warning no more, since it was said in another way."""
    _said.add(text)


def say_once(path: Path, remark: str) -> None:
    """Log a remark that is true of many files, with the first of them as the example."""
    if remark not in _said:
        _said.add(remark)
        log.info("%s: %s (said of the first such file)", path, remark)


def log_first(note: Note) -> None:
    """Log a warning that was collected; of a kind of its own, only the first of many files."""
    if note.kind == SURVIVED:
        log.warning("%s", note.text)
    elif note.kind not in _said:
        _said.add(note.kind)
        log.warning("%s (said of the first such file; the table names all)", note.text)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Gather the warnings of this thread in a list instead of logging them; each once."""
    texts: list[str] = []
    with _collected(lambda note: texts.append(note.text)):
        yield texts


@contextmanager
def collecting_notes() -> Iterator[list[Note]]:
    """Gather warnings as `collecting` does, with their kinds."""
    notes: list[Note] = []
    with _collected(notes.append):
        yield notes


@contextmanager
def _collected(add: Callable[[Note], None]) -> Iterator[None]:
    """Give each warning of this thread to `add`, once, instead of logging it."""
    thread = threading.get_ident()
    seen: set[str] = set()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread or record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        if text not in seen:
            seen.add(text)
            add(Note(getattr(record, "kind", SURVIVED), text))
        return False

    log.addFilter(keep)
    _here.collecting = getattr(_here, "collecting", 0) + 1
    try:
        yield
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
