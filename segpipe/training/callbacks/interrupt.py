"""Ctrl-C and SIGTERM end a training at whatever point they strike."""

import signal
import threading
from typing import Any

import pytorch_lightning as pl

from segpipe.signals import number_of, stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EndsWithTheFirst(pl.Callback):
    """A callback of a process beside the first one, which a signal to the first one ends.

    A Ctrl-C strikes all of them: the first takes it, writes the page, and ends the others.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the signals to the first process, but for the one that ends this process."""
        follow_the_first()


def follow_the_first() -> None:
    """Let Ctrl-C pass by, and SIGTERM end this process at once, wherever it waits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Interrupt(pl.Callback):
    """A callback that raises a signal again after a step in which Python ignored it.

    Python ignores what is raised in a finaliser or in a callback of the garbage collector; a signal
    that strikes there would be lost, and the run would train on to its end.

    Attributes:
        number: of the signal that ended the training; None where none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember every signal from here on."""
        if threading.current_thread() is not threading.main_thread():  # no other receives signals
            return
        for number in SIGNALS:
            self.previous_handlers[number] = signal.signal(number, self._interrupt)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """End the training where that was requested.

        Raises:
            Stopped: that was lost in the step.
        """
        if self.number is not None:
            stop(self.number)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """End the training likewise after a validated case."""
        self.on_train_batch_end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back to the handlers that had them before."""
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Note which signal ended the training; give the signals back after an error.

        After a Ctrl-C Lightning lets no other one in, so that the page is written whole.
        """
        if isinstance(exception, KeyboardInterrupt):
            self.number = number_of(exception)
        else:
            self.on_train_end(trainer, pl_module)

    def _interrupt(self, number: int, _frame: Any) -> None:
        self.number = number
        stop(number)
