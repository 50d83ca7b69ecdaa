"""An end before the budget is spent, where the validations get no better."""

import logging

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from segpipe.text import count
from segpipe.training.task import SegmentationTask

log = logging.getLogger("segpipe")


class Patience(EarlyStopping):
    """Ends the training after some validations without a better mean Dice.

    Args:
        validations: number of validations.
    """

    def __init__(self, validations: int) -> None:
        super().__init__(
            "dice/mean",
            min_delta=0.0,
            mode="max",
            patience=validations,
            check_on_train_epoch_end=False,
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last validation, and say so where it is the last one."""
        was_ending = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        if trainer.should_stop and not was_ending:
            assert isinstance(pl_module, SegmentationTask)
            log.info(
                "the training ends at %.0f %% of its budget: no better mean Dice in %s "
                "(trainer.patience)",
                100 * pl_module.spent(),
                count(self.patience, "validation"),
            )
