"""Measure how dense the source of a package is.

    python benchmarks/density.py segpipe                        # one package
    python benchmarks/density.py BASE/segpipe segpipe           # two side by side
    python benchmarks/density.py segpipe --max-comprehensions 20 --max-assignments 2

With limits, the exit status is 1 if any of the folders breaks one. The length of a function runs
from `def` to its last line, without the docstring; rates count all lines, blank ones included.
"""

import argparse
import ast
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

COMPREHENSION = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
LONG_LINE = 100  # characters
SHORT_FUNCTION = 25  # lines


@dataclass
class Counts:
    """What was counted in the modules of a package.

    Attributes:
        lines: all lines, blank ones and comments included.
        long_lines: lines over 100 characters.
        comprehensions: list, set and dict comprehensions and generator expressions.
        nested_comprehensions: comprehensions inside another one.
        assignments: assignments of a tuple to a tuple, as in `a, b = c, d`.
        functions: lines of each function.
        modules: lines of each module.
    """

    lines: int = 0
    long_lines: int = 0
    comprehensions: int = 0
    nested_comprehensions: int = 0
    assignments: int = 0
    functions: list[int] = field(default_factory=list)
    modules: list[int] = field(default_factory=list)

    def per_thousand(self, number: int) -> float:
        """Return a number of occurrences as a rate per 1,000 lines."""
        return 1000 * number / self.lines if self.lines else 0.0

    def add_module(self, source: str) -> None:
        """Add what one module holds."""
        lines = source.splitlines()
        tree = ast.parse(source)
        self.lines += len(lines)
        self.modules.append(len(lines))
        self.long_lines += sum(map(is_long, lines))
        self.nested_comprehensions += count_nested(tree)
        for node in ast.walk(tree):
            self.comprehensions += isinstance(node, COMPREHENSION)
            self.assignments += is_tuple_assignment(node)
            if isinstance(node, FUNCTION):
                self.functions.append(function_length(node))


def is_long(line: str) -> bool:
    """Return whether a line has more than 100 characters."""
    return len(line) > LONG_LINE


def is_tuple_assignment(node: ast.AST) -> bool:
    """Return whether a statement assigns a tuple to a tuple, as in `a, b = c, d`."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


def count_nested(node: ast.AST, inside: bool = False) -> int:
    """Return the number of comprehensions that stand inside another one."""
    is_comprehension = isinstance(node, COMPREHENSION)
    total = int(is_comprehension and inside)
    for child in ast.iter_child_nodes(node):
        total += count_nested(child, inside or is_comprehension)
    return total


def function_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function from `def` to its end, without its docstring."""
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is None:
        return length
    docstring = function.body[0]
    assert docstring.end_lineno is not None
    return length - (docstring.end_lineno - docstring.lineno + 1)


def measure(folder: Path) -> Counts:
    """Return the counts of all Python files below a folder.

    Raises:
        SystemExit: if there is none.
    """
    counts = Counts()
    for file in sorted(folder.rglob("*.py")):
        counts.add_module(file.read_text(encoding="utf-8"))
    if not counts.modules:
        sys.exit(f"{folder}: no Python files")
    return counts


def percentile_90(values: Sequence[int]) -> int:
    """Return the smallest value that at least 90 % of the values do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(0.9 * len(ordered)) - 1] if ordered else 0


def median(values: Sequence[int]) -> float:
    """Return the median, or 0 of no values."""
    return statistics.median(values) if values else 0


def share_short(functions: Sequence[int]) -> float:
    """Return the percentage of functions with fewer than 25 lines."""
    short = sum(length < SHORT_FUNCTION for length in functions)
    return 100 * short / len(functions) if functions else 100.0


@dataclass(frozen=True)
class Measure:
    """A row of the table, and the option that limits it.

    Attributes:
        title: the row's name.
        value: computes it from the counts.
        digits: after the decimal point.
        option: name of the option that limits it, without dashes; empty where none does.
        lower_limit: whether the limit is the least rather than the most.
    """

    title: str
    value: Callable[[Counts], float]
    digits: int = 0
    option: str = ""
    lower_limit: bool = False

    def exceeded(self, value: float, limit: float) -> bool:
        """Return whether a value breaks the limit."""
        return value < limit if self.lower_limit else value > limit


MEASURES = (
    Measure("lines", lambda counts: counts.lines),
    Measure(
        "comprehensions per 1,000 lines",
        lambda counts: counts.per_thousand(counts.comprehensions),
        1,
        "max-comprehensions",
    ),
    Measure(
        "nested comprehensions per 1,000 lines",
        lambda counts: counts.per_thousand(counts.nested_comprehensions),
        1,
        "max-nested",
    ),
    Measure(
        "assignments of several values per 1,000 lines",
        lambda counts: counts.per_thousand(counts.assignments),
        1,
        "max-assignments",
    ),
    Measure(
        "lines over 100 characters, %",
        lambda counts: counts.per_thousand(counts.long_lines) / 10,
        1,
        "max-long-lines",
    ),
    Measure("functions", lambda counts: len(counts.functions)),
    Measure("lines of a function, median", lambda counts: median(counts.functions)),
    Measure("lines of a function, 90th percentile", lambda counts: percentile_90(counts.functions)),
    Measure(
        "lines of a function, longest",
        lambda counts: max(counts.functions, default=0),
        option="max-function",
    ),
    Measure(
        "functions under 25 lines, %",
        lambda counts: share_short(counts.functions),
        1,
        "min-short-functions",
        lower_limit=True,
    ),
    Measure("modules", lambda counts: len(counts.modules)),
    Measure("lines of a module, median", lambda counts: median(counts.modules)),
    Measure("lines of a module, 90th percentile", lambda counts: percentile_90(counts.modules)),
    Measure(
        "lines of a module, longest",
        lambda counts: max(counts.modules, default=0),
        option="max-module",
    ),
)


def table(folders: Sequence[Path], counts: Sequence[Counts]) -> Iterator[str]:
    """Yield the lines of a table with a column per folder."""
    names = list(map(str, folders))
    widths = [max(10, len(name)) for name in names]
    title_width = max(len(row.title) for row in MEASURES)
    yield " " * title_width + "".join(map(cell, names, widths))
    for row in MEASURES:
        values = [f"{row.value(count):,.{row.digits}f}" for count in counts]
        yield f"{row.title:{title_width}}" + "".join(map(cell, values, widths))


def cell(text: str, width: int) -> str:
    """Return a text right-aligned in a column, after two spaces."""
    return f"  {text:>{width}}"


def broken_limits(
    folders: Sequence[Path], counts: Sequence[Counts], limits: argparse.Namespace
) -> Iterator[str]:
    """Yield a line for each limit that a folder breaks."""
    for row in MEASURES:
        limit = getattr(limits, row.option.replace("-", "_")) if row.option else None
        if limit is None:
            continue
        for folder, count in zip(folders, counts, strict=True):
            value = row.value(count)
            if row.exceeded(value, limit):
                bound = "at least" if row.lower_limit else "at most"
                shown = f"{value:,.{row.digits}f}"
                yield f"{folder}: {row.title}: {shown}, must be {bound} {limit:g}"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the folders and limits given on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="folders of Python files")
    for row in MEASURES:
        if row.option:
            bound = "least" if row.lower_limit else "most"
            text = f"{bound} allowed value of: {row.title.replace('%', '%%')}"
            parser.add_argument(f"--{row.option}", type=float, metavar="N", help=text)
    return parser.parse_args(arguments)


def main(arguments: Iterable[str] | None = None) -> int:
    """Print the table; return 1 if a limit is broken, else 0."""
    given = parse_arguments(None if arguments is None else list(arguments))
    counts = list(map(measure, given.folders))
    for line in table(given.folders, counts):
        print(line)
    broken = list(broken_limits(given.folders, counts, given))
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
