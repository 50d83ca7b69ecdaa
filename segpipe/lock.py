"""Who works in a folder: files that a living process touches, on one machine or on several."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.errors import ConfigError
from segpipe.processes import is_running

FILE = ".segpipe-lock"
TOUCHED_S = 30.0  # between two signs of life
JOB = "SLURM_JOB_ID"
RESTARTS = "SLURM_RESTART_COUNT"  # of a job that was requeued
GONE_S = 300.0  # without one, after which a process is taken for gone


@dataclass(frozen=True)
class Holder:
    """The process that made a file to say that it is at work.

    Attributes:
        facts: what the file holds: host, process id, since when, and what its kind adds.
        silent_s: seconds since its last sign of life.
    """

    facts: dict[str, Any]
    silent_s: float

    def __str__(self) -> str:
        facts = self.facts
        return f"process {facts.get('pid')} on {facts.get('host')}"

    @property
    def is_gone(self) -> bool:
        """Return whether the process has ended, or has been silent for too long."""
        is_here = self.facts.get("host") == socket.gethostname()
        is_dead = is_here and not _is_alive(self.facts.get("pid"))
        return self.silent_s > GONE_S or is_dead or self._is_before_requeue()

    def _is_before_requeue(self) -> bool:
        """Return whether this process belongs to the job of the holder, started again since."""
        own = _job_facts()
        if not own or own["job"] != self.facts.get("job"):
            return False
        starts = self.facts.get("starts")
        return isinstance(starts, int) and starts < own["starts"]


def own_facts(**more: Any) -> dict[str, Any]:
    """Return what a file says of this process: host, process id, the time, and what is given."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since} | _job_facts() | more


def _job_facts() -> dict[str, Any]:
    """Return the job of SLURM that this process belongs to, and how often it was started again."""
    if JOB not in os.environ:
        return {}
    restarts = os.environ.get(RESTARTS, "0")
    return {"job": os.environ[JOB], "starts": int(restarts) if restarts.isdecimal() else 0}


def read_holder(file: Path) -> Holder | None:
    """Return the process that made a file; None where the file is gone.

    Of a file that is damaged, or read while it is written, the age alone decides.
    """
    try:
        silent_s = time.time() - file.stat().st_mtime
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    try:
        facts = json.loads(text)
    except ValueError:
        facts = {}
    return Holder(facts if isinstance(facts, dict) else {}, silent_s)


@contextmanager
def showing_life(file: Path) -> Iterator[None]:
    """Touch a file of this process while the block runs, and remove it at the end.

    Raises:
        OSError: if the file is not there, or cannot be read.
    """
    own = file.read_bytes()
    done = threading.Event()
    signs = threading.Thread(target=_show_life, args=(file, done), daemon=True)
    signs.start()
    try:
        yield
    finally:
        done.set()
        signs.join()
        remove(file, own)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; a process that is gone holds nothing.

    Raises:
        ConfigError: if another process holds it; the message says which, where and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    take(file)
    with showing_life(file):
        yield


def take(file: Path) -> None:
    """Make the file, in place of that of a process that is gone.

    Raises:
        ConfigError: if the process that made it is still there.
    """
    for _ in range(2):
        try:
            with file.open("x", encoding="utf-8") as opened:
                json.dump(own_facts(), opened)
            return
        except FileExistsError:
            left = _left_behind(file)
            if left is not None:
                remove(file, left)
    raise ConfigError(f"{file.parent}: another process has begun in it just now")


def _left_behind(file: Path) -> bytes | None:
    """Return the content of a lock whose process shows no sign of life; None where it is gone.

    Raises:
        ConfigError: if the process shows one.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    holder = read_holder(file)
    if holder is None or holder.is_gone:
        return content
    raise ConfigError(
        f"{file.parent}: {holder} has worked in it since {holder.facts.get('since')}; wait for it, "
        f"or stop it (if it is gone, the folder is free {GONE_S:.0f} s after its last sign of "
        f"life, {holder.silent_s:.0f} s ago)"
    )


def remove(file: Path, content: bytes) -> None:
    """Remove a file if it still has this content.

    Between a look at it and its removal another process may have put its own in its place. So it is
    first renamed, which one process alone can do, then looked at, and put back if it is another's.
    """
    aside = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        file.rename(aside)
    except FileNotFoundError:
        return
    try:
        if aside.read_bytes() != content:
            with suppress(FileExistsError):  # a third process was faster
                os.link(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def _is_alive(pid: object) -> bool:
    """Return whether another process of this machine runs; this one's number may be an old one."""
    return isinstance(pid, int) and pid != os.getpid() and is_running(pid)


def _show_life(file: Path, done: threading.Event) -> None:
    while not done.wait(TOUCHED_S):
        try:
            os.utime(file)
        except OSError:  # the folder was moved away: the file went along
            return
