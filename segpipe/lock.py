"""A folder that one process at a time may fill, on one machine or on several that share a disk."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segpipe.errors import ConfigError
from segpipe.processes import is_running

FILE = ".segpipe-lock"
TOUCHED_S = 30.0  # between two signs of life
GONE_S = 300.0  # without one, after which a process is taken for gone


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; a process that is gone holds nothing.

    Raises:
        ConfigError: if another process holds it; the message says which, where and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    _take(file)
    done = threading.Event()
    signs = threading.Thread(target=_show_life, args=(file, done), daemon=True)
    signs.start()
    try:
        yield
    finally:
        done.set()
        signs.join()
        file.unlink(missing_ok=True)


def _take(file: Path) -> None:
    """Make the file, in place of that of a process that is gone.

    Raises:
        ConfigError: if the process that made it is still there.
    """
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
    for _ in range(2):
        try:
            with file.open("x", encoding="utf-8") as opened:
                json.dump(holder, opened)
            return
        except FileExistsError:
            _check_gone(file)
            file.unlink(missing_ok=True)
    raise ConfigError(f"{file.parent}: another process has begun in it just now")


def _check_gone(file: Path) -> None:
    """Check that the process that made a lock shows no sign of life.

    Raises:
        ConfigError: if it does.
    """
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        silent_s = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return
    except ValueError:  # read while it is written, or damaged: its age decides
        holder = {}
        silent_s = time.time() - file.stat().st_mtime
    pid = holder.get("pid")
    is_here = holder.get("host") == socket.gethostname()
    if silent_s > GONE_S or (is_here and not _is_alive(pid)):
        return
    raise ConfigError(
        f"{file.parent}: process {pid} on {holder.get('host')} has worked in it since "
        f"{holder.get('since')}; wait for it, or stop it (if it is gone, the folder is free "
        f"{GONE_S:.0f} s after its last sign of life, {silent_s:.0f} s ago)"
    )


def _is_alive(pid: object) -> bool:
    """Return whether another process of this machine runs; this one's number may be an old one."""
    return isinstance(pid, int) and pid != os.getpid() and is_running(pid)


def _show_life(file: Path, done: threading.Event) -> None:
    while not done.wait(TOUCHED_S):
        try:
            os.utime(file)
        except OSError:  # the folder was moved away: the lock went along
            return
