"""Signals that end a process, and the exit status that tells a shell or a scheduler so."""

import os
import signal
import sys
import threading
from typing import Any

AGAIN_S = 0.05  # after which a signal that was lost is sent again
_lost: set[int] = set()


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or the SIGTERM of a scheduler.

    Lightning and Python's own code treat it as the `KeyboardInterrupt` that it is.

    Attributes:
        number: the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def number_of(error: KeyboardInterrupt) -> int:
    """Return the signal behind an interruption; Python raises its own for Ctrl-C."""
    return error.number if isinstance(error, Stopped) else signal.SIGINT


def exit_status(error: KeyboardInterrupt) -> int:
    """Return 128 and the number of the signal, as shells have it: 130 for INT, 143 for TERM."""
    return 128 + number_of(error)


def interruption_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interruption during whose handling an error arose; None where there was none.

    A library that restores its state on the way out may fail there, since a signal can strike
    before the state is complete.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__context__
    return seen


def stop(number: int, _frame: Any = None) -> None:
    """Raise `Stopped`; a handler for `signal.signal`."""
    _lost.discard(number)
    raise Stopped(number)


def handle_termination() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that what is done is kept and shown.

    Neither gets lost: Python ignores what is raised in a finaliser, or in a callback of a weak
    reference or of the garbage collector. A signal that strikes there is sent again.
    """
    if threading.current_thread() is threading.main_thread():  # no other receives signals
        signal.signal(signal.SIGTERM, stop)
        sys.unraisablehook = _send_again


def _send_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Send the signal behind an interruption that Python ignores once more, a moment later."""
    if not isinstance(ignored.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    number = number_of(ignored.exc_value)
    _lost.add(number)
    timer = threading.Timer(AGAIN_S, _send_if_lost, [number])
    timer.daemon = True
    timer.start()


def _send_if_lost(number: int) -> None:
    if number in _lost:  # else it has been raised meanwhile, by whoever remembered it
        _lost.discard(number)
        os.kill(os.getpid(), number)
