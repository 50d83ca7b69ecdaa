"""What a person sees while something runs: lines, bars and tables that do not write over each other; and the log file.

Log lines go to the terminal from INFO on, or from DEBUG on with `verbose=true`; the log file has all, tables too.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rich
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

from segpipe.errors import ConfigError, SegpipeError

WIDTH = 200  # of a file, in letters: it has no width to which a column would have to be cut
DATED = "%(asctime)s %(levelname)s %(message)s"
log = logging.getLogger("segpipe")


class TerminalHandler(logging.Handler):
    """Prints log lines above a running progress bar, errors to standard error; plain text where it is no terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line, never broken at the terminal's width; not what the terminal shows in another form."""
        if getattr(record, "shown", False):
            return
        console = Console(stderr=True) if record.levelno >= logging.ERROR else rich.get_console()
        console.print(self.format(record), soft_wrap=True, markup=False, highlight=False)


class LogFile(logging.FileHandler):
    """A log file in a folder that appears later: a command that is refused leaves neither behind."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True)
        self.folder, self.waiting = file.parent, list[logging.LogRecord]()
        self.setFormatter(logging.Formatter(DATED))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line, and those that have waited for the folder."""
        self.waiting.append(record)
        while self.waiting and self.folder.is_dir():
            super().emit(self.waiting.pop(0))


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Everything that is said inside goes into this file too, behind what stands there."""
    handler, level = LogFile(file), log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    except ConfigError:  # refused, before anything was done: it leaves nothing behind, not even in a folder that was there
        raise
    except SegpipeError as error:  # which whoever called shows
        log.error("%s", error, extra={"shown": True})
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def say_more() -> None:
    """Shows details in the terminal, which else only the log file has."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, TerminalHandler):
            handler.setLevel(logging.DEBUG)


def progress_bar(counted: bool = True) -> Progress:
    """A progress bar with the time left; nothing where the output is not a terminal.

    Args:
        counted: whether to show `done/all`, for scans, or a percentage, for a budget.
    """
    console = rich.get_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if counted else TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    _show(table)


def show_next(rows: Sequence[tuple[str, object]]) -> None:
    """Prints where to look, and what to type, next: names and what belongs to them."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, what in rows:
        table.add_row(name, str(what))
    _show(table)


def _show(table: Table) -> None:
    console, drawn = rich.get_console(), io.StringIO()
    Console(file=drawn, width=WIDTH).print(table)
    text = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
    log.info("\n%s", text, extra={"shown": True})
    if console.is_terminal:
        console.print(table)
    else:
        console.print(text, soft_wrap=True, markup=False, highlight=False)


def relative_to_cwd(path: Path) -> Path:
    """A path as one would type it here: below the working directory without that, else as it is."""
    here = Path.cwd()
    return path.absolute().relative_to(here) if path.absolute().is_relative_to(here) else path
