"""Commands as a user runs them."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path

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


def command(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository in a folder, or a module where its name has no `.py`."""
    argv = [str(REPOSITORY / script) if script.endswith(".py") else script, *arguments]
    with tempfile.TemporaryDirectory() as name:
        outputs = {kind: str(Path(name) / kind) for kind in ("stdout", "stderr")}
        request = {"argv": argv, "cwd": str(folder), "env": os.environ | ONE_THREAD, **outputs}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(request), file=server.stdin, flush=True)
        child = int(server.stdout.readline())
        watch = threading.Timer(SECONDS, os.killpg, [child, signal.SIGKILL])
        watch.start()
        status = int(server.stdout.readline())
        watch.cancel()
        said = {kind: Path(path).read_text() for kind, path in outputs.items()}
    return subprocess.CompletedProcess(argv, status, **said)
