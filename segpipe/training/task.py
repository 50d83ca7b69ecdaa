"""The LightningModule: a step on patches, a validation on whole scans in their native geometry."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor, nn
from torch.optim import Optimizer

from segpipe.checkpoint import KEY, TrainedOn, metadata
from segpipe.config.train import Train
from segpipe.data.cases import Case
from segpipe.data.module import NO_CASE
from segpipe.device import NumberFormat
from segpipe.metrics import mean_dice
from segpipe.nets.unet import renamed_weights
from segpipe.plan import Plan
from segpipe.prediction.predictor import Predictor
from segpipe.ranks import ALONE, Ranks, collected
from segpipe.training.finite import FiniteLoss
from segpipe.training.initial import Record
from segpipe.training.loss import SegmentationLoss
from segpipe.training.loss.pooling import mean_over_devices
from segpipe.training.optim import make_optimizer, set_learning_rate
from segpipe.training.random_state import random_states, restore_random_states
from segpipe.training.schedule import Budget, learning_rate
from segpipe.training.validation import Validation, ValidationScans
from segpipe.windows import to_network

RANDOM_STATES = "random_states"  # keys in the checkpoint
EPOCH_LOSSES = "epoch_losses"
NEVER = 2**62  # steps between two validations, until one is due


class SegmentationTask(pl.LightningModule):
    """A network that is trained on patches and validated on whole scans.

    Args:
        network: maps `(B, C, *spatial)` to logits `(B, K, *spatial)`, or to a list of them, finest
            first.
        plan: how cases become patches.
        options: the run's options, kept in every checkpoint.
        budget: the end of the training, which the learning rate follows.
        number_format: the format in which whole scans are predicted.
        data: a record of the training data, kept in every checkpoint.
        initial: a record of the weights that the network started from, likewise.
        ranks: the processes that train together.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        options: Train,
        budget: Budget,
        number_format: NumberFormat,
        data: TrainedOn,
        initial: Record | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.network = network
        self.plan = plan
        self.options = options
        self.budget = budget
        self.number_format: NumberFormat = number_format
        self.data = data
        self.initial = initial
        self.ranks = ranks
        self.loss = SegmentationLoss(plan, options.loss.weights, options.loss)
        self.finite = FiniteLoss()
        self.losses: list[Tensor] = []  # of the steps of the present epoch
        self.losses_before: list[Tensor] = []  # of those before the training was stopped in it
        self.step = 0  # optimiser steps done before the present one
        self.predictor: Predictor | None = None  # of the validations
        self.scans = ValidationScans(plan)
        self.validation: Validation | None = None
        self.dice: list[np.ndarray] = []  # a row per validated case, a column per target
        self.validated: list[str] = []  # names of those cases
        self.last_validation = 0.0  # fraction of the budget that was spent then

    def configure_optimizers(self) -> Optimizer:
        """Return the optimiser; its learning rate is set before every step."""
        loaded = [] if self.initial is None else self.initial.loaded
        scale = self.options.init.lr_scale
        return make_optimizer(self.network, self.options.optim, loaded, scale)

    def spent(self) -> float:
        """Return the fraction of the budget that is spent by this process's clock, from 0 to 1."""
        callbacks: list[Any] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        seconds = 0.0
        for callback in callbacks:
            if isinstance(callback, Timer):
                seconds = callback.time_elapsed()
        return self.budget.spent(self.trainer.global_step, seconds)

    def spent_of_all(self) -> float:
        """Return the fraction that is spent by the first process's clock; all must ask at once."""
        spent = self.spent()
        return self.ranks.shared(spent) if self.budget.time else spent

    def on_train_start(self) -> None:
        """Count the time to the first validation; let dropout differ between devices."""
        self.last_validation = self.spent_of_all()
        if not self.ranks.is_first:
            torch.manual_seed(hash((self.options.seed, self.ranks.rank, self.trainer.global_step)))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate from the budget, so that the schedule fits wall time too."""
        self.step = self.trainer.global_step
        rate = learning_rate(self.spent_of_all(), self.options.optim)
        set_learning_rate(self.trainer.optimizers[0], rate)
        self.log("lr", torch.tensor(rate), batch_size=1)  # a number would be copied to a GPU

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the training when the budget is spent; Lightning then validates once more.

        Where several devices train for a time, it is the first one's clock that says when they
        validate, too.
        """
        spent = self.spent_of_all()
        if spent >= 1:
            self.trainer.should_stop = True
        if self.ranks.size > 1 and not self.budget.steps:
            interval = 1 / self.options.trainer.validations
            is_due = spent - self.last_validation >= interval
            self.trainer.val_check_batch = 1 if is_due else NEVER

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch of patches.

        Raises:
            DivergedError: if the loss is infinite or NaN; on a GPU, if that of the step before is.
        """
        logits = self.network(to_network(batch["image"], self.plan.slice_axis))
        terms = self.loss.terms(logits, to_network(batch["label"], self.plan.slice_axis))
        loss = torch.stack(list(terms.values())).sum()
        self.finite.check(self.step, terms, batch["case"])
        self._log_loss(mean_over_devices(loss.detach()), len(batch["case"]))
        return loss

    def _log_loss(self, loss: Tensor, batch_size: int) -> None:
        """Log the loss of a step; the epoch's is the mean over its steps, however often stopped."""
        for value in [*self.losses_before, loss]:
            self.log("loss", value, on_step=False, on_epoch=True, batch_size=batch_size)
            self.losses.append(value)
        self.losses_before = []

    def on_train_epoch_end(self) -> None:
        """Forget the losses of the epoch's steps."""
        self.losses = []

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation.

        Raises:
            DivergedError: if the loss of the last step is infinite or NaN.
        """
        self.finite.check_last()
        self.dice = []
        self.validated = []
        if self.predictor is None:
            self.predictor = Predictor(self.network, self.plan, self.device, self.number_format)
        if self.validation is not None:
            self.validation.finish()
        self.validation = Validation(self.predictor, self.scans)

    def validation_step(self, case: Case, batch_idx: int) -> None:
        """Measure Dice per target of a whole scan on its own grid, segmented as by `predict.py`."""
        if case == NO_CASE:
            return
        assert self.validation is not None
        self.validation.measure(case)

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice over all cases per target, and the mean of those over targets."""
        assert self.validation is not None
        self.validated = self.validation.names
        self.dice = self.validation.finish()
        self.validation = None
        names, rows = zip(*self.ranks.gathered((self.validated, self.dice)), strict=True)
        self.validated = collected(names)
        self.dice = collected(rows)
        means = mean_dice(np.array(self.dice))
        for target, mean in zip(self.plan.targets, means, strict=True):
            self.log(f"dice/{target}", float(mean))
        self.log("dice/mean", float(np.nanmean(means)), prog_bar=True)
        self.last_validation = self.spent_of_all()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store beside the weights what is needed to predict with them.

        Raises:
            DivergedError: if the loss of the last step is infinite or NaN.
        """
        self.finite.check_last()
        metrics = self.trainer.callback_metrics
        dice = {}
        for target in self.plan.targets:
            if f"dice/{target}" in metrics:
                dice[target] = float(metrics[f"dice/{target}"])
        source = None if self.initial is None else self.initial.source
        config = self.options.model_dump(mode="json")
        checkpoint[KEY] = metadata(config, self.plan, self.data, dice, source)
        checkpoint[RANDOM_STATES] = random_states(self.trainer.strategy.root_device)
        checkpoint[EPOCH_LOSSES] = [loss.cpu() for loss in self.losses]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up weights of any version, and the random state from which dropout draws."""
        for key in ("state_dict", "current_model_state"):  # the second is there with optim.ema
            if key in checkpoint:
                checkpoint[key] = renamed_weights(checkpoint[key])
        restore_random_states(checkpoint[RANDOM_STATES], self.trainer.strategy.root_device)
        self.losses_before = checkpoint.get(EPOCH_LOSSES, [])
