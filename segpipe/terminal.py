"""What a person sees while something runs: log lines and progress bars that do not write over each other."""

import logging

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


class TerminalHandler(logging.Handler):
    """Prints log lines above a running progress bar, errors to standard error; plain text where it is no terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line, never broken at the terminal's width."""
        console = Console(stderr=True) if record.levelno >= logging.ERROR else rich.get_console()
        console.print(self.format(record), soft_wrap=True, markup=False, highlight=False)


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
    console = rich.get_console()
    if not console.is_terminal:
        console = Console(width=200)  # a file has no width that a column would have to be cut to
    console.print(table)
