"""`benchmarks/density.py` counts what it says, and holds its limits."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import REPOSITORY

SOURCE = '''"""A module."""


def short(values):
    """Return something.

    In a docstring of several lines.
    """
    first, second = values[0], values[1]
    first, second = values
    return [[x for x in row] for row in values]


def long():
{lines}
'''


def density(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "benchmarks/density.py", *map(str, arguments)]
    return subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    lines = "    pass\n" * 29 + "    # " + "x" * 100 + "\n    pass"
    (folder / "module.py").write_text(SOURCE.replace("{lines}", lines))
    return folder


def rows(printed: str) -> dict[str, list[str]]:
    table = {}
    for line in printed.splitlines()[1:]:
        title, *values = line.split("  ")
        table[title] = "".join(f" {value}" for value in values).split()
    return table


def test_each_row_counts_what_it_names(package: Path) -> None:
    done = density(package, package)
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    lines = len((package / "module.py").read_text().splitlines())
    assert table["lines"] == [str(lines)] * 2
    assert table["comprehensions per 1,000 lines"] == [f"{2000 / lines:.1f}"] * 2
    assert table["nested comprehensions per 1,000 lines"] == [f"{1000 / lines:.1f}"] * 2
    assert table["assignments of several values per 1,000 lines"] == [f"{1000 / lines:.1f}"] * 2
    assert table["lines over 100 characters, %"] == [f"{100 / lines:.1f}"] * 2
    assert table["functions"] == ["2", "2"]
    assert table["lines of a function, longest"] == ["32", "32"]
    assert table["lines of a function, median"] == ["18", "18"]
    assert table["functions under 25 lines, %"] == ["50.0", "50.0"]


@pytest.mark.parametrize(
    ("limit", "value", "status"),
    [
        ("--max-comprehensions", "60", 0),
        ("--max-comprehensions", "20", 1),
        ("--max-assignments", "2", 1),
        ("--max-function", "32", 0),
        ("--max-function", "31", 1),
        ("--min-short-functions", "50", 0),
        ("--min-short-functions", "90", 1),
    ],
)
def test_a_broken_limit_is_a_failure(package: Path, limit: str, value: str, status: int) -> None:
    done = density(package, limit, value)
    assert done.returncode == status
    assert bool(done.stderr) == bool(status)


def test_a_folder_without_python_is_a_failure(tmp_path: Path) -> None:
    done = density(tmp_path)
    assert done.returncode == 1
    assert "no Python files" in done.stderr
