"""A process that has imported segpipe already, and forks itself for each command of a test.

A command takes six seconds to import torch, MONAI and Lightning, and a tiny run less. The commands
of the README run in processes of their own, in `make demo`, as do the tests of start-up times.

    python fork_server.py REPOSITORY

reads a line of JSON for each command, `{argv, cwd, env, stdout, stderr}`, and answers with a line
that holds the process id of the fork, and with another that holds its exit status.
"""

import atexit
import json
import os
import runpy
import sys
import threading
import traceback
from typing import Any


def preload() -> None:
    """Import what commands import."""
    import segpipe.batch
    import segpipe.doctor
    import segpipe.probe.depth
    import segpipe.probe.lesion
    import segpipe.run  # noqa: F401


def run(request: dict[str, Any]) -> int:
    """Do a command in this process, and return its exit status."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = request["argv"]
    status = 0
    try:
        if sys.argv[0].endswith(".py"):
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def serve() -> None:
    """Fork for each request, one at a time."""
    answers = os.fdopen(os.dup(1), "w")
    preload()
    atexit._clear()  # of what the server has imported; each command registers its own
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run(json.loads(line)) & 255)
        print(child, file=answers, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    serve()
