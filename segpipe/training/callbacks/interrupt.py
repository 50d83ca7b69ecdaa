"""Ctrl-C ends a training wherever it strikes."""

import signal
import threading
from typing import Any

import pytorch_lightning as pl


class Interrupt(pl.Callback):
    """Raises Ctrl-C anew after a step where nobody heard it.

    Python ignores what is raised in a finaliser or in a callback of the garbage collector; a Ctrl-C that strikes there
    would be lost, and the run train on to its end.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers from here on that there was a Ctrl-C."""
        if threading.current_thread() is threading.main_thread():  # no signal arrives in another
            self.before = signal.signal(signal.SIGINT, self._ask)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Ends the training if it was asked to.

        Raises:
            KeyboardInterrupt: that was lost in the step.
        """
        if self.asked:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """The same after a case that validates."""
        self.on_train_batch_end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves Ctrl-C to whoever had it before."""
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """The same after an error; after a Ctrl-C Lightning lets no other one in, so that the page is written whole."""
        if not isinstance(exception, KeyboardInterrupt):
            self.on_train_end(trainer, pl_module)

    def _ask(self, *_: Any) -> None:
        self.asked = True
        raise KeyboardInterrupt
