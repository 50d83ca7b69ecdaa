"""The checkpoints of a run: the best and the last, wherever its folder lies."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from segpipe.signals import stop
from segpipe.training.callbacks.interrupt import Interrupt

WAIT = 19.0  # times what a writing takes, until the next


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint that is overwritten in the folder of the run, which may be moved or copied.

    Lightning stores the folder's path, and forgets the best score where the run goes on in another
    one: `best.ckpt` would be overwritten by a worse network.
    """

    @property
    def state_key(self) -> str:
        """Return the name of the state in a checkpoint: as Lightning's own class has it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a run, with its paths in this folder."""
        assert self.dirpath is not None
        moved = dict(state_dict)
        moved["dirpath"] = self.dirpath
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[key] = self._here(moved.get(key) or "")
        best = moved.get("best_k_models") or {}
        moved["best_k_models"] = {self._here(path): score for path, score in best.items()}
        super().load_state_dict(moved)

    def _here(self, path: str) -> str:
        """Return a stored path in this run's folder; an empty one stays empty."""
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""


class LastCheckpoint(RunCheckpoint):
    """The checkpoint from which a stopped run goes on.

    It is written after the first epoch, after later ones where it is time to, and at the end. An
    epoch is passed over until the given time is over, or where the last writing took so long, as
    that of a large network on a fast GPU does, that another one would bring writing above a
    twentieth of the time. At a signal it is written after the step in hand, in the middle of an
    epoch, and the training ends; several devices end at once, and go on from the one before.

    Args:
        folder: the folder of the run's checkpoints.
        every: least time between two writings; None: by what a writing takes.
        interrupt: knows of signals; None in a process beside the first one.
    """

    def __init__(
        self, folder: Path, every: timedelta | None = None, interrupt: Interrupt | None = None
    ) -> None:
        super().__init__(
            folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.every = every
        self.interrupt = interrupt
        self.writing = 0.0  # seconds that the last writing took; 0 before the first
        self.written = time.perf_counter()

    @property
    def signal(self) -> int | None:
        """Return the number of the signal that is to end the training; None: there was none."""
        return None if self.interrupt is None else self.interrupt.number

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Write the checkpoint at a signal, and end the training.

        Raises:
            Stopped: after the writing; of several devices at once, since they would all have to
                meet for it.
        """
        if self.signal is None:
            return
        if trainer.world_size == 1:
            if not _goes_on_from_here(trainer):
                return
            assert self.dirpath is not None
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")
        stop(self.signal)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint where it is time to, and at a signal, which ends the training.

        Raises:
            Stopped: after the writing at a signal.
        """
        start = time.perf_counter()
        wait = WAIT * self.writing
        if self.every is not None and self.writing:
            wait = self.every.total_seconds()
        is_end = trainer.should_stop or self.signal is not None
        is_due = is_end or start - self.written >= wait
        if not trainer.strategy.broadcast(is_due):  # by the clock of the first device
            return
        super().on_train_epoch_end(trainer, pl_module)
        self.written = time.perf_counter()
        self.writing = self.written - start
        if self.signal is not None:
            stop(self.signal)


def _goes_on_from_here(trainer: pl.Trainer) -> bool:
    """Return whether a resumed training can go on from a batch as if it had not been stopped.

    It cannot between the batches of one optimiser step, nor before a validation that is due, which
    Lightning would pass over; the end of an epoch has its own checkpoint.
    """
    loop = trainer.fit_loop
    done = loop.batch_idx + 1
    interval = trainer.val_check_batch
    is_validation_due = isinstance(interval, int) and (loop.total_batch_idx + 1) % interval == 0
    is_whole_step = done % trainer.accumulate_grad_batches == 0
    is_last = trainer.should_stop or done >= trainer.num_training_batches
    return is_whole_step and not is_validation_due and not is_last


def best_and_last(
    folder: Path, every: timedelta | None, interrupt: Interrupt | None = None
) -> list[ModelCheckpoint]:
    """Return what keeps `best.ckpt`, of the highest mean Dice, and `last.ckpt`, to go on from.

    Args:
        folder: the folder of the run's checkpoints.
        every: least time between two writings of `last.ckpt`, as `LastCheckpoint` takes it.
        interrupt: the interrupt, as `LastCheckpoint` takes it.
    """
    best = RunCheckpoint(
        folder,
        filename="best",
        monitor="dice/mean",
        mode="max",
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return [best, LastCheckpoint(folder, every, interrupt)]
