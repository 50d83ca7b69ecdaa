"""One process at a time fills a folder."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import REPOSITORY

from segpipe.errors import ConfigError
from segpipe.lock import FILE, GONE_S, alone_in, own_facts, remove

HOLDING = """
import sys
from pathlib import Path
from segpipe.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    """Return a process that holds the folder until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_says_who_is_there(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        who = f"process {process.pid} on {socket.gethostname()}"
        with pytest.raises(ConfigError, match=who), alone_in(tmp_path):
            pytest.fail("both hold it")
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    with alone_in(tmp_path):
        assert (tmp_path / FILE).is_file()
    assert not (tmp_path / FILE).exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        process.kill()
    assert (tmp_path / FILE).is_file()
    with alone_in(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ['{"host": "elsewhere", "pid": 1, "since": "now"}', "", "{"])
def test_another_machine_is_believed_while_it_shows_life(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ConfigError, match="wait for it, or stop it"), alone_in(tmp_path):
        pytest.fail("both hold it")
    before = time.time() - GONE_S - 1
    os.utime(tmp_path / FILE, (before, before))
    with alone_in(tmp_path):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / FILE).exists()


def test_a_lock_that_another_has_just_renewed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding(tmp_path) as process:
        process.kill()
    taken = json.dumps(own_facts() | {"host": "another"})

    def late(file: Path, content: bytes) -> None:
        file.write_text(taken)  # by another process, which has seen the same dead one
        remove(file, content)

    monkeypatch.setattr("segpipe.lock.remove", late)
    with pytest.raises(ConfigError, match="on another"), alone_in(tmp_path):
        pytest.fail("both hold it")
    assert (tmp_path / FILE).read_text() == taken
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]


def test_the_lock_of_another_is_not_removed_at_the_end(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        (tmp_path / FILE).write_text("another's")
    assert (tmp_path / FILE).read_text() == "another's"
