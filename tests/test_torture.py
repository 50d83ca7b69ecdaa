"""A short torture of prediction; `benchmarks/torture.py --minutes 60` is the long one."""

import subprocess
import sys

import pytest
from support.commands import REPOSITORY

PREDICTION = ("signal", "two_at_once", "full_disk", "no_permission", "flip_scan", "flip_checkpoint",
              "flip_record", "flip_output", "moved")  # fmt: skip


@pytest.mark.slow
def test_no_attack_makes_a_wrong_result() -> None:
    call = [sys.executable, "benchmarks/torture.py", "--minutes", "1", "--only", *PREDICTION]
    done = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert {*tried} == {"attack", "all", *PREDICTION}, done.stdout
    assert tried["all"].split()[-1] == "0"
