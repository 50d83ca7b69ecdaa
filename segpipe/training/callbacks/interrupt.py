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
    """A callback that lets the step in hand end at a signal, so that its weights can be kept.

    `LastCheckpoint` writes them and ends the training. A signal ends a validation at once, and what
    several devices do, since a scheduler may not wait until they meet; a second one ends anything
    at once. None is lost where Python ignores what is raised, as it does
    in a finaliser or in a callback of the garbage collector.

    Attributes:
        number: the number of the signal that is to end the training, or has ended it; None where
            none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.ends_at_once = False
        self.is_validating = False
        self.previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember every signal from here on: those two, and what else ends a run, as of SLURM."""
        self.ends_at_once = trainer.world_size > 1
        if threading.current_thread() is not threading.main_thread():  # no other receives signals
            return
        for number in signal.valid_signals():
            if number in SIGNALS or signal.getsignal(number) is stop:
                self.previous_handlers[number] = signal.signal(number, self._interrupt)

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        """Let a signal end the validation at once."""
        self.is_validating = True
        self._end_if_asked()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """End the training after a validated case in which a signal was lost."""
        self._end_if_asked()

    def on_validation_end(self, *_: Any, **__: Any) -> None:
        """Let the steps that follow end as steps do."""
        self.is_validating = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back to the handlers that had them before.

        Raises:
            Stopped: at a signal in the last step.
        """
        self._give_back()
        self._end_if_asked()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Note which signal ended the training; give the signals back after an error.

        After a Ctrl-C Lightning lets no other one in, so that the page is written whole.
        """
        if isinstance(exception, KeyboardInterrupt):
            self.number = number_of(exception)
        else:
            self._give_back()

    def _interrupt(self, number: int, _frame: Any) -> None:
        is_second = self.number is not None
        self.number = number
        if is_second or self.is_validating or self.ends_at_once:
            stop(number)

    def _end_if_asked(self) -> None:
        if self.number is not None:
            stop(self.number)

    def _give_back(self) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)
