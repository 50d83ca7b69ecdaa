"""`metrics.csv`: a row per epoch, complete after every epoch and continued after a resume.

Beside it `dice.csv`: each case of the last validation, for a run that is not scored to its end.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from segpipe.files import write_rows, write_table
from segpipe.training.callbacks.validation_loss import NAME as VALIDATION_LOSS
from segpipe.training.task import SegmentationTask

CASES = "dice.csv"
PER_EPOCH = ("loss", "lr")  # logged metrics of every epoch


@dataclass(frozen=True)
class CaseDice:
    """One target of one case, validated during training.

    Attributes:
        step: optimiser steps done before.
        case: the case's name.
        label: the target's name.
        dice: NaN where neither mask has it.
    """

    step: int
    case: str
    label: str
    dice: float


class History(pl.Callback):
    """A callback that records loss, learning rate, and validated loss and Dice of every epoch.

    The rows are kept in the checkpoint, so that those of an epoch which a killed run did not save
    are forgotten.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "metrics.csv"
        self.cases = folder / CASES
        self.rows: list[dict[str, float]] = []
        self.validation: dict[str, float] = {}  # what was validated in this epoch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write `dice.csv`, and keep loss and mean Dice for the epoch's row."""
        assert isinstance(pl_module, SegmentationTask)
        rows = []
        for case, dice_of_case in zip(pl_module.validated, pl_module.dice, strict=True):
            for label, dice in zip(pl_module.plan.targets, dice_of_case, strict=True):
                rows.append(CaseDice(trainer.global_step, case, label, float(dice)))
        write_rows(self.cases, rows, CaseDice)
        self.validation = {}
        for name, value in trainer.callback_metrics.items():
            if name.startswith("dice/") or name == VALIDATION_LOSS:
                self.validation[name] = float(value)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table with the epoch's row."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        for name in PER_EPOCH:
            if name in trainer.callback_metrics:
                row[name] = float(trainer.callback_metrics[name])
        self.rows.append(row | self.validation)
        self.validation = {}
        self._write()

    def _write(self) -> None:
        """Write a column for each name that any row has; cells of other rows stay empty."""
        columns: dict[str, None] = {}
        for row in self.rows:
            columns |= dict.fromkeys(row)
        cells = []
        for row in self.rows:
            cells.append([row.get(name, "") for name in columns])
        write_table(self.file, list(columns), cells)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows of a resumed run."""
        self.rows = list(state_dict["rows"])
