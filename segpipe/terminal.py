"""Output of a running command: log lines, progress bars and tables, one above the other.

The terminal shows log lines from INFO on, or from DEBUG on with `verbose=true`; the log file holds
all of them, and the tables too.
"""

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import rich
from rich.box import ASCII
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from segpipe.errors import ConfigError, SegpipeError
from segpipe.text import visible, visible_lines

FILE_WIDTH = 200  # characters of a table where the output is not a terminal
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
log = logging.getLogger("segpipe")


class TerminalHandler(logging.Handler):
    """A handler that prints log lines above a running progress bar, and errors to standard error.

    Where the output is not a terminal, lines are plain text; else a record that is logged with
    `extra={"style": "bold red"}` is shown in that style of rich. Where nobody reads it any more, as
    behind `| head -1`, nothing is printed, and the command goes on.
    """

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        rich.get_console().on_broken_pipe = _print_no_more

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as one line, without wrapping; skip records that are shown otherwise."""
        if getattr(record, "shown", False):
            return
        console = Console(stderr=True) if record.levelno >= logging.ERROR else rich.get_console()
        text = self.format(record)
        if record.name.startswith("hydra"):
            text = text.expandtabs(2)  # launchers indent what they launch
        text = visible_lines(text)
        style = getattr(record, "style", None)
        console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def _print_no_more() -> None:
    """Let standard output lead nowhere; rich would end the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class LogFormatter(logging.Formatter):
    """Formats log records with every character to be seen."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's lines."""
        return visible_lines(super().format(record))


class LogFile(logging.FileHandler):
    """A log file that is created once its folder exists.

    A command that is rejected before it starts leaves neither the file nor the folder. Where the
    file cannot be written, as on a full disk, one line says so, and the command goes on.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True, errors="backslashreplace")
        self.folder = file.parent
        self.is_broken = False
        self.waiting: list[logging.LogRecord] = []
        self.setFormatter(LogFormatter(LOG_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after those that waited for the folder."""
        if self.is_broken:
            return
        self.waiting.append(record)
        while self.waiting and self.folder.is_dir():
            try:
                super().emit(self.waiting.pop(0))
            except OSError:  # it cannot be opened
                self.handleError(record)
                return

    def _open(self) -> io.TextIOWrapper:
        """Open the file; opening a pipe would wait for its other end.

        Raises:
            OSError: if it cannot be opened, or is a pipe.
        """
        if Path(self.baseFilename).is_fifo():
            raise OSError(errno.EINVAL, "is a pipe")
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say once that the file cannot be written, in place of a traceback for each record."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.is_broken:
            self.is_broken = True
            log.warning("%s: cannot be written (%s)", self.baseFilename, error.strerror)

    def close(self) -> None:
        """Close the file, though what is left may not fit on the disk."""
        with suppress(OSError):
            super().close()


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Append all log records of the block to a file."""
    handler = LogFile(file)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    except ConfigError:  # raised before any work: it leaves no trace in an existing folder either
        raise
    except SegpipeError as error:  # the caller prints it
        log.error("%s", error, extra={"shown": True})
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def say_more() -> None:
    """Show debug records in the terminal, which otherwise only the log file holds."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, TerminalHandler):
            handler.setLevel(logging.DEBUG)


def progress_bar(counted: bool = True) -> Progress:
    """Return a progress bar with the time left, hidden where the output is not a terminal.

    Args:
        counted: show `done/total`, as for scans, rather than a percentage, as for a time budget.
    """
    console = rich.get_console()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn() if counted else TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    table = Table(title=_plain(title), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(_plain(column), justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(_plain, row))
    _show(table)


def show_next(rows: Sequence[tuple[str, object]]) -> None:
    """Print where to look and what to type next, as pairs of a name and a path or command."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _plain(value))
    _show(table)


def _plain(value: object) -> Text:
    """Return a text that rich shows as it is, brackets and all."""
    return Text(visible(value))


def _show(table: Table) -> None:
    """Print a table and write it to the log file."""
    console = rich.get_console()
    if not console.encoding.lower().startswith("utf"):
        table.box = table.box and ASCII
    drawn = io.StringIO()
    Console(file=drawn, width=FILE_WIDTH).print(table)
    text = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
    log.info("\n%s", text, extra={"shown": True})
    if console.is_terminal:
        console.print(table)
    else:
        console.print(text, soft_wrap=True, markup=False, highlight=False)


def relative_to_cwd(path: Path) -> Path:
    """Return a path relative to the working directory if it lies below it, else unchanged."""
    absolute = path.absolute()
    folder = Path.cwd()
    return absolute.relative_to(folder) if absolute.is_relative_to(folder) else path
