"""`metrics.csv`: a row per epoch, whole after every epoch, and going on where it was after a resume.

Beside it `dice.csv`: each case of the last validation during training, for a run that is never scored to its end.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from segpipe.files import write_rows, write_text
from segpipe.training.task import SegmentationTask

CASES = "dice.csv"


@dataclass(frozen=True)
class CaseDice:
    """One target of one case, validated during training.

    Attributes:
        step: after which it was.
        case: the case's name.
        label: the target's name.
        dice: NaN where neither mask has it.
    """

    step: int
    case: str
    label: str
    dice: float


class History(pl.Callback):
    """Keeps the epoch's mean loss, the learning rate, and Dice where whole scans were validated in that epoch.

    The rows travel in the checkpoint, so that those of an epoch which a killed run did not save are forgotten.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.cases = folder / "metrics.csv", folder / CASES
        self.rows: list[dict[str, float]] = []
        self.measured: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the Dice."""
        assert isinstance(pl_module, SegmentationTask)
        rows = [
            CaseDice(trainer.global_step, case, label, float(dice))
            for case, row in zip(pl_module.validated, pl_module.dice, strict=True)
            for label, dice in zip(pl_module.plan.targets, row, strict=True)
        ]
        write_rows(self.cases, rows, CaseDice)
        found = trainer.callback_metrics.items()
        self.measured = {name: float(value) for name, value in found if name.startswith("dice/")}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the table with the epoch's row."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {
            name: float(trainer.callback_metrics[name])
            for name in ("loss", "lr")
            if name in trainer.callback_metrics
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
