"""Commands as a user runs them."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
TINY = ["model.channels=[4,8]", "data.phantom.train=6", "data.phantom.test=2", "plan.batch=1", "plan.patch=[32,32,32]",
        "trainer.max_steps=6", "trainer.steps_per_epoch=3", "trainer.validations=2", "data.workers=0"]  # fmt: skip


SECONDS = 300.0  # after which a command of a test is killed
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # tests run beside each other


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Return the process that forks for each command; it ends with the tests, as its input does."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(REPOSITORY)],
        env=os.environ | ONE_THREAD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(**request: Any) -> Any:
    """Send a request to the process that forks, and return its answer."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


@dataclass
class Started:
    """A command that runs beside the test.

    Attributes:
        argv: what it was called with.
        pid: of its process, which leads a group of its own.
        folder: holds what it has said.
        status: how it has ended; None while it runs.
        memory_kib: the most that it, or a child of its, had resident.
    """

    argv: list[str]
    pid: int
    folder: Path
    status: int | None = None
    memory_kib: int = 0

    def poll(self, block: bool = False) -> int | None:
        """Return the exit status, or None while the command runs."""
        if self.status is None:
            ended = _ask(wait=self.pid, block=block)
            if ended is not None:
                self.status, self.memory_kib = ended
        return self.status

    def wait_for(self, *files: Path) -> None:
        """Wait until these files are there, while the command runs."""
        while not all(file.is_file() for file in files):
            assert self.poll() is None, self.done().stderr
            time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def done(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end, and return the exit status and what was said."""
        watch = threading.Timer(SECONDS, os.killpg, [self.pid, signal.SIGKILL])
        watch.start()
        status = self.poll(block=True)
        watch.cancel()
        assert status is not None
        said = {kind: (self.folder / kind).read_text() for kind in ("stdout", "stderr")}
        return subprocess.CompletedProcess(self.argv, status, **said)


@contextmanager
def started(script: str, *arguments: str, folder: Path, pictures: bool = True) -> Iterator[Started]:
    """Start a command, and kill it at the end of the block if it still runs.

    Args:
        script: a script of the repository, or a module where its name has no `.py`.
        arguments: of the command.
        folder: in which it runs.
        pictures: False: figures are blank, which saves a third of a tiny training.
    """
    argv = [str(REPOSITORY / script) if script.endswith(".py") else script, *arguments]
    with tempfile.TemporaryDirectory() as name:
        outputs = {kind: str(Path(name) / kind) for kind in ("stdout", "stderr")}
        request = {"argv": argv, "cwd": str(folder), "env": os.environ | ONE_THREAD, **outputs}
        pid = _ask(**request, pictures=pictures)
        process = Started(argv, pid, Path(name))
        try:
            yield process
        finally:
            if process.poll() is None:
                os.kill(pid, signal.SIGKILL)
                process.done()


def command(
    script: str, *arguments: str, folder: Path, pictures: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command as `started` does, and return how it ended."""
    with started(script, *arguments, folder=folder, pictures=pictures) as process:
        return process.done()
