"""The folder in which `torture.py` runs commands, as forks of a process that has imported everything."""

import atexit
import ctypes
import os
import random
import resource
import runpy
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
LONGEST_S = 600.0  # that a command may take on a busy machine
DAC_OVERRIDE = 1  # the capability by which root passes over permissions
CAPABILITIES = 0x20080522  # version of the system call


class WrongError(Exception):
    """A result that is not what it says."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: exit status, negative for a signal that killed it.
        said: what it wrote to the terminal.
    """

    status: int
    said: str


@dataclass(frozen=True)
class Command:
    """A command at work.

    Attributes:
        pid: its process.
        said: file that holds what it writes.
        listener: copies what it writes to that file; the command itself writes to a pipe, as to a
            terminal, which no limit of its files' sizes holds for.
    """

    pid: int
    said: Path
    listener: threading.Thread

    def wait(self) -> Ended:
        """Wait until it ends.

        Raises:
            WrongError: if it never does, or shows a traceback.
        """
        deadline = time.monotonic() + LONGEST_S
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
                raise WrongError(f"did not end within {LONGEST_S:.0f} s")
            time.sleep(0.01)
        self.listener.join()
        text = self.said.read_text(errors="replace")
        if "Traceback" in text:
            raise WrongError(f"traceback: {text.strip().splitlines()[-1]}")
        return Ended(os.waitstatus_to_exitcode(status), text)


class Arena:
    """A folder in which commands run and are attacked.

    Args:
        folder: of one attack.
        rng: of all that is random.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.number = 0

    def start(
        self, script: str, *words: str, file_bytes: int | None = None, as_user: bool = False
    ) -> Command:
        """Start a command in a fork of this process, which has imported everything.

        Args:
            script: of the repository.
            words: after it.
            file_bytes: largest file that it may write, as on a full disk.
            as_user: whether file permissions count, which root does not heed otherwise.
        """
        self.number += 1
        said = self.folder / f"said-{self.number}.txt"
        reading, terminal = os.pipe()
        # a signal must not find the fork in this process's code, which would clean up
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS.keys() - {signal.SIGKILL})
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = _run(self.folder, terminal, script, words, file_bytes, as_user)
            finally:  # whatever is raised, as by a terminal that cannot be written to
                os._exit(status & 255)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.close(terminal)
        listener = threading.Thread(target=_listen, args=(reading, said), daemon=True)
        listener.start()
        return Command(pid, said, listener)

    def call(self, script: str, *words: str) -> Ended:
        """Run a command to its end."""
        return self.start(script, *words).wait()

    def copy(self, source: Path, *names: str) -> None:
        """Copy files and folders into the folder."""
        for name in names:
            if (source / name).is_dir():
                shutil.copytree(source / name, self.folder / name)
            else:
                shutil.copy2(source / name, self.folder / name)

    def move(self) -> None:
        """Give the folder another name."""
        self.folder = self.folder.rename(self.folder.with_name(self.folder.name + "-moved"))

    def disturb(self, script: str, *words: str, longest_s: float) -> Ended:
        """Run a command and send it a signal at a random time, unless it has ended by then."""
        command = self.start(script, *words)
        time.sleep(self.rng.uniform(0, longest_s))
        number = self.rng.choice(list(ENDS))
        with suppress(ProcessLookupError):  # it has ended, which `wait` finds
            os.kill(command.pid, number)
        ended = command.wait()
        if ended.status not in (0, ENDS[number], -number):  # the last: before it has a handler
            raise WrongError(f"status {ended.status} after signal {number}: {ended.said[-300:]}")
        return ended

    def flip(self, file: Path) -> str:
        """Flip a bit of a file, or cut the file short; return what was done."""
        content = bytearray(file.read_bytes())
        place = self.rng.randrange(len(content))
        if self.rng.random() < 0.2:
            file.write_bytes(content[:place])
            return f"{file.name} cut at byte {place} of {len(content)}"
        bit = self.rng.randrange(8)
        content[place] ^= 1 << bit
        file.write_bytes(content)
        return f"bit {bit} of byte {place} of {len(content)} of {file.name}"


def _listen(reading: int, said: Path) -> None:
    """Copy what comes out of a pipe to a file until its other end is closed."""
    with open(reading, "rb", buffering=0) as pipe, said.open("wb", buffering=0) as file:
        while text := pipe.read(2**16):
            file.write(text)


def _run(
    folder: Path,
    terminal: int,
    script: str,
    words: Sequence[str],
    file_bytes: int | None,
    as_user: bool,
) -> int:
    """Do a command in this process, and return its exit status."""
    os.setsid()
    atexit._clear()  # of the process that this one is a fork of: its folders would be removed
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(terminal, number)
    # those of this process may lead to a file, in which they would seek
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    if as_user:
        _heed_permissions()
    sys.argv = [str(ROOT / script), *words]
    status = 0
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except KeyboardInterrupt:  # before the command has begun
        status = 130
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _heed_permissions() -> None:
    """Give up the right to write where permissions forbid it (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc.capget(header, sets)
    sets[0] &= ~(1 << DAC_OVERRIDE)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


Attack = Callable[[Arena], str]  # returns one of `OUTCOMES` but the last, which it raises
