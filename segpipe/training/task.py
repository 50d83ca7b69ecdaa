"""The LightningModule: a step on patches, a validation on whole scans in their native geometry."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor, nn
from torch.optim import Optimizer

from segpipe.checkpoint import KEY, TrainedOn, metadata, renamed_weights
from segpipe.config.train import Train
from segpipe.data.cases import Case
from segpipe.data.prepare import read_labels
from segpipe.device import NumberFormat
from segpipe.errors import DivergedError
from segpipe.metrics import dice_per_target, mean_dice
from segpipe.plan import Plan
from segpipe.prediction.predictor import Predictor
from segpipe.training.loss import SegmentationLoss
from segpipe.training.optim import make_optimizer
from segpipe.training.schedule import Budget, learning_rate
from segpipe.windows import to_network

CHANCE = "random_states"


class SegmentationTask(pl.LightningModule):
    """Trains a network on patches.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`, or to a list of them, finest first.
        plan: what the network sees.
        options: the run's options, kept in every checkpoint.
        budget: when training ends; the learning rate follows it.
        number_format: in what whole scans are predicted.
        data: what it is trained on, for the checkpoint.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        options: Train,
        budget: Budget,
        number_format: NumberFormat,
        data: TrainedOn,
    ) -> None:
        super().__init__()
        self.data = data
        self.network, self.plan, self.options, self.budget = network, plan, options, budget
        self.number_format: NumberFormat = number_format
        self.loss = SegmentationLoss(plan, options.optim)
        self.dice: list[np.ndarray] = []  # a row per validated case, a column per target
        self.validated: list[str] = []  # names of those cases

    def configure_optimizers(self) -> Optimizer:
        """The optimiser; its learning rate is set before every step."""
        return make_optimizer(self.network, self.options.optim)

    def spent(self) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        callbacks: list[Any] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        timers = [callback for callback in callbacks if isinstance(callback, Timer)]
        seconds = timers[0].time_elapsed() if timers else 0.0
        return self.budget.spent(self.trainer.global_step, seconds)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate from the budget, so that the schedule fits wall time too."""
        rate = learning_rate(self.spent(), self.options.optim)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        self.log("lr", rate, batch_size=1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Ends training when the budget is spent; Lightning validates once more then."""
        if self.spent() >= 1:
            self.trainer.should_stop = True

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Dice and cross-entropy of a batch of patches.

        Raises:
            DivergedError: if the loss is no number any more.
        """
        logits = self.network(to_network(batch["image"], self.plan.slice_axis))
        terms = self.loss.terms(logits, to_network(batch["label"], self.plan.slice_axis))
        loss = torch.stack(list(terms.values())).sum()
        if not loss.isfinite():
            parts = ", ".join(f"{name} {float(term):g}" for name, term in terms.items())
            raise DivergedError(
                f"step {self.trainer.global_step}: the loss is {float(loss):g} ({parts}) on patches of "
                f"{', '.join(batch['case'])}; lower optim.lr, or look at these cases with mode=doctor"
            )
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["case"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        self.dice, self.validated = [], []
        self.predictor = Predictor(self.network, self.plan, self.device, self.number_format)

    def validation_step(self, case: Case, batch_idx: int) -> None:
        """Dice per target of a whole scan, on its own grid, through the code that `predict.py` uses."""
        prediction = self.predictor.predict(case.images)
        truth = read_labels(case, self.plan, prediction.grid).numpy()[0]
        self.validated.append(case.name)
        self.dice.append(dice_per_target(prediction.labels, truth, self.plan.targets))

    def on_validation_epoch_end(self) -> None:
        """Logs the mean over cases per target, and the mean of those over targets."""
        means = mean_dice(np.array(self.dice))
        self.log_dict(
            {
                f"dice/{name}": float(value)
                for name, value in zip(self.plan.targets, means, strict=True)
            }
        )
        self.log("dice/mean", float(np.nanmean(means)), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts beside the weights what is needed to predict with them."""
        measured = self.trainer.callback_metrics
        dice = {
            name: float(measured[f"dice/{name}"])
            for name in self.plan.targets
            if f"dice/{name}" in measured
        }
        checkpoint[KEY] = metadata(self.options.model_dump(mode="json"), self.plan, self.data, dice)
        checkpoint[CHANCE] = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up weights of any version, and the random state from which dropout draws."""
        checkpoint["state_dict"] = renamed_weights(checkpoint["state_dict"])
        torch.set_rng_state(checkpoint[CHANCE][0].cpu())
        torch.cuda.set_rng_state_all([state.cpu() for state in checkpoint[CHANCE][1:]])
