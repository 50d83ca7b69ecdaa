"""Commands that run in turns, one halted while another runs: what else uses the machine slows all of them alike."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TURN_S = 3.0
# ours would make way for the other command, which it cannot know to be halted in its own turns
ENVIRONMENT = {"OMP_NUM_THREADS": str(os.cpu_count()), **os.environ}


@dataclass
class Ran:
    """What a command took.

    Attributes:
        seconds: that it was running.
        peak_mib: of its resident memory.
    """

    seconds: float = 0.0
    peak_mib: float = 0.0


def in_turns(
    calls: Sequence[Sequence[str]], between: Callable[[], None] = lambda: None
) -> list[Ran]:
    """Runs commands in the repository's folder until all have ended, each a few seconds at a time.

    Args:
        calls: the commands.
        between: is called after each turn, while all are halted.
    """
    found = [Ran() for _ in calls]
    waiting = [_Halting(call) for call in calls]
    while any(waiting):
        for ran, one in zip(found, waiting, strict=True):
            if one:
                one.turn(ran)
                between()
    return found


class _Halting:
    """A command that runs only in its turns; true until it has ended."""

    def __init__(self, call: Sequence[str]) -> None:
        self.call, self.process = call, 0

    def __bool__(self) -> bool:
        return self.process >= 0

    def turn(self, ran: Ran) -> None:
        """Lets it run for a while, or to its end."""
        start = time.perf_counter()
        if self.process:
            os.kill(self.process, signal.SIGCONT)
        else:
            self.process = subprocess.Popen(
                self.call, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL
            ).pid
        while time.perf_counter() - start < TURN_S:
            ended, status, usage = os.wait4(self.process, os.WNOHANG)
            if ended:
                ran.seconds += time.perf_counter() - start
                ran.peak_mib = usage.ru_maxrss / 1024
                self.process = -1
                if status:
                    sys.exit(
                        f"{' '.join(self.call)} ended with status {os.waitstatus_to_exitcode(status)}"
                    )
                return
            time.sleep(0.005)
        os.kill(self.process, signal.SIGSTOP)
        ran.seconds += time.perf_counter() - start
