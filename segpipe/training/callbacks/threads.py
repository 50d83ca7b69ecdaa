"""A training on a CPU that other processes use, too."""

from typing import Any

import pytorch_lightning as pl
import torch

from segpipe.threads import fit_threads


class Threads(pl.Callback):
    """Keeps the number of threads at what other processes leave.

    Args:
        device: the device that trains.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def on_train_start(self, *_: Any, **__: Any) -> None:
        """Begin to watch the other processes."""
        fit_threads(self.device)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Fit the threads after a step."""
        fit_threads(self.device)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Fit the threads after a validation case."""
        fit_threads(self.device)
