"""`metrics.csv`: a row per epoch, whole after every epoch, and going on where it was after a resume."""

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from segpipe.files import write_text


class History(pl.Callback):
    """Keeps the epoch's mean loss, the learning rate, and Dice where whole scans were validated in that epoch.

    The rows travel in the checkpoint, so that those of an epoch which a killed run did not save are forgotten.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, float]] = []
        self.measured: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the Dice."""
        found = trainer.callback_metrics.items()
        self.measured = {name: float(value) for name, value in found if name.startswith("dice/")}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the table with the epoch's row."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {
            name: float(trainer.callback_metrics[name]) for name in ("loss", "lr") if name in trainer.callback_metrics
        }
        self.rows.append(row | self.measured)
        self.measured = {}
        self._write()

    def _write(self) -> None:
        text = io.StringIO()
        names = dict.fromkeys(name for row in self.rows for name in row)
        table = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.file, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the rows of a resumed run."""
        self.rows = list(state_dict["rows"])
