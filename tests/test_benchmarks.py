"""Every benchmark can be imported, so that none is left behind when modules move."""

import os
import subprocess
import sys

import pytest
from support.commands import ONE_THREAD, REPOSITORY

BENCHMARKS = sorted(path.stem for path in (REPOSITORY / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_imported(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"],
        cwd=REPOSITORY / "benchmarks",
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
