"""A process that has imported segpipe already, and forks itself for each command of a test.

A command takes six seconds to import torch, MONAI and Lightning, and a tiny run less. The commands
of the README run in processes of their own, in `make demo`, as do the tests of start-up times.

    python fork_server.py REPOSITORY

reads a line of JSON for each request and answers with another. `{argv, cwd, env, stdout, stderr,
pictures}` starts a command and gives the process id of the fork; `{wait, block}` gives the exit status of a
process and the most memory that it had resident in KiB, or null where it still runs and nobody asks
to wait.
"""

import atexit
import io
import json
import os
import runpy
import sys
import threading
import traceback
from typing import Any

from matplotlib.figure import Figure
from PIL import Image


def preload() -> None:
    """Import what commands import, and do once what each would do the first time."""
    import segpipe.batch
    import segpipe.cli
    import segpipe.data.intensity
    import segpipe.doctor
    import segpipe.probe.depth
    import segpipe.probe.lesion
    import segpipe.run  # noqa: F401
    from segpipe.config.compose import defaults
    from segpipe.registry import LAYOUTS

    for name in LAYOUTS:
        _ = LAYOUTS[name]  # which imports its module
    defaults("train")  # Hydra looks for its plugins
    Figure().savefig(io.BytesIO())  # matplotlib looks for its fonts, Pillow for its formats


def draw_blank(_figure: Figure, file: Any, **_options: Any) -> None:
    """Write a picture of nothing in place of a figure, which takes a third of a tiny run."""
    Image.new("RGB", (60, 40), "white").save(file, "png")


def run(request: dict[str, Any]) -> int:
    """Do a command in this process, and return its exit status."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if not request["pictures"]:
        Figure.savefig = draw_blank  # type: ignore[method-assign]
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
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    preload()
    atexit._clear()  # of what the server has imported; each command registers its own
    for line in sys.stdin:
        request = json.loads(line)
        answer = status_of(**request) if "wait" in request else fork(request)
        print(json.dumps(answer), file=answers, flush=True)


def fork(request: dict[str, Any]) -> int:
    """Start a command, and return its process id."""
    child = os.fork()
    if child == 0:
        os._exit(run(request) & 255)
    return child


def status_of(wait: int, block: bool) -> tuple[int, int] | None:
    """Return the exit status of a command and its most memory in KiB; None where it still runs."""
    child, status, used = os.wait4(wait, 0 if block else os.WNOHANG)
    return (os.waitstatus_to_exitcode(status), used.ru_maxrss) if child else None


if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/tests"]
    serve()
