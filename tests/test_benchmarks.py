"""Every benchmark can be imported, so that none is left behind when modules move."""

from pathlib import Path

import pytest
from support.commands import REPOSITORY, command

FOLDER = REPOSITORY / "benchmarks"
BENCHMARKS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_imported(name: str, tmp_path: Path) -> None:
    """In a process of its own, since some set the number of threads where they are imported."""
    script = tmp_path / "importing.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import {name}\n")
    done = command(str(script), folder=tmp_path)
    assert done.returncode == 0, done.stderr
