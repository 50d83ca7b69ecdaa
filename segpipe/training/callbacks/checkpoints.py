"""The checkpoints of a run: the best and the last, wherever its folder lies."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

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
    twentieth of the time.

    Args:
        folder: of the run's checkpoints.
        every: least time between two writings; None: by what a writing takes.
    """

    def __init__(self, folder: Path, every: timedelta | None = None) -> None:
        super().__init__(
            folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.every = every
        self.writing = 0.0  # seconds that the last writing took; 0 before the first
        self.written = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint where it is time to."""
        start = time.perf_counter()
        wait = WAIT * self.writing
        if self.every is not None and self.writing:
            wait = self.every.total_seconds()
        is_due = trainer.should_stop or start - self.written >= wait
        if not trainer.strategy.broadcast(is_due):  # by the clock of the first device
            return
        super().on_train_epoch_end(trainer, pl_module)
        self.written = time.perf_counter()
        self.writing = self.written - start


def best_and_last(folder: Path, every: timedelta | None) -> list[ModelCheckpoint]:
    """Return what keeps `best.ckpt`, of the highest mean Dice, and `last.ckpt`, to go on from.

    Args:
        folder: of the run's checkpoints.
        every: least time between two writings of `last.ckpt`, as of `LastCheckpoint`.
    """
    best = RunCheckpoint(
        folder,
        filename="best",
        monitor="dice/mean",
        mode="max",
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return [best, LastCheckpoint(folder, every)]
