"""Ctrl-C ends a training at whatever point it strikes."""

import signal
import threading
from typing import Any

import pytorch_lightning as pl


class Interrupt(pl.Callback):
    """A callback that raises Ctrl-C again after a step in which Python ignored it.

    Python ignores what is raised in a finaliser or in a callback of the garbage collector; a Ctrl-C
    that strikes there would be lost, and the run would train on to its end.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.previous_handler: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember every Ctrl-C from here on."""
        if threading.current_thread() is threading.main_thread():  # no other receives signals
            self.previous_handler = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """End the training where that was requested.

        Raises:
            KeyboardInterrupt: that was lost in the step.
        """
        if self.is_requested:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """End the training likewise after a validated case."""
        self.on_train_batch_end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give Ctrl-C back to the handler that had it before."""
        if self.previous_handler is not None:
            signal.signal(signal.SIGINT, self.previous_handler)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give Ctrl-C back after an error.

        After a Ctrl-C Lightning lets no other one in, so that the page is written whole.
        """
        if not isinstance(exception, KeyboardInterrupt):
            self.on_train_end(trainer, pl_module)

    def _interrupt(self, *_: Any) -> None:
        self.is_requested = True
        raise KeyboardInterrupt
