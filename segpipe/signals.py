"""Signals that end a process, and the exit status that tells a shell or a scheduler so."""

import signal
import threading
from typing import Any


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or the SIGTERM of a scheduler.

    Lightning and Python's own code treat it as the `KeyboardInterrupt` that it is.

    Attributes:
        number: of the signal.
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


def stop(number: int, _frame: Any = None) -> None:
    """Raise `Stopped`; a handler for `signal.signal`."""
    raise Stopped(number)


def handle_termination() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that what is done is kept and shown."""
    if threading.current_thread() is threading.main_thread():  # no other receives signals
        signal.signal(signal.SIGTERM, stop)
