"""Tables and texts for LaTeX: booktabs, every special character escaped."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from segpipe.files import write_text
from segpipe.reporting.page import Cell, Column, Link, Picture, Table, Value
from segpipe.text import visible

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "—": "--",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
    "\N{NO-BREAK SPACE}": "~",
    "†": r"$\dagger$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "°": r"\textdegree{}",
    "±": r"$\pm$",
    "²": r"\textsuperscript{2}",
    "³": r"\textsuperscript{3}",
}
NOT_KNOWN = "--"
UNIT = re.compile(r"^(?P<name>.+?),? (?P<unit>mm|mL|px[²³]?|points|s|MiB|M|G)$")
MINUS = re.compile(r"(?<![\w.])-(?=\d)")
HEAD = "% needs \\usepackage{booktabs}; labels in letters beyond Latin need XeLaTeX or LuaLaTeX"


def escaped(text: str) -> str:
    """Return a text that LaTeX sets as it stands, on one line."""
    return "".join(ESCAPES.get(letter, letter) for letter in visible(text))


def latex_table(table: Table, label: str) -> str:
    """Return a table in LaTeX, with the digits and units that the page shows.

    Columns of pictures are left out.

    Args:
        table: the table of a page.
        label: by which the text refers to it.
    """
    columns = [index for index in range(len(table.columns)) if not _is_pictures(table, index)]
    kept = [table.columns[index] for index in columns]
    alignment = "".join("l" if column.digits is None else "r" for column in kept)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.caption)}.}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _row([_heading(column.name) for column in kept]),
        r"\midrule",
    ]
    for row in table.rows:
        lines.append(_row([_cell(row[index], table.columns[index]) for index in columns]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def write_latex(file: Path, tables: dict[str, Table]) -> None:
    """Write tables for LaTeX into one file.

    Args:
        file: to write.
        tables: by their labels.

    Raises:
        DataError: if it cannot be written.
    """
    texts = [latex_table(table, label) for label, table in tables.items()]
    write_text(file, "\n".join([HEAD, *texts]))


def _is_pictures(table: Table, index: int) -> bool:
    return any(isinstance(row[index], Picture) for row in table.rows)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _heading(name: str) -> str:
    """Return a heading with its unit in brackets: `HD95 (mm)`."""
    found = UNIT.match(name)
    return escaped(f"{found['name']} ({found['unit']})" if found else name)


def _cell(cell: Cell, column: Column) -> str:
    if isinstance(cell, Link | Value):
        return escaped(cell.text)
    if cell is None or isinstance(cell, Picture):
        return NOT_KNOWN
    if isinstance(cell, int | float):
        if not math.isfinite(cell):
            return NOT_KNOWN
        cell = f"{cell:.{column.digits or 0}f}"
    return MINUS.sub("$-$", escaped(cell))
