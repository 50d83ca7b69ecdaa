"""Gradient and step of every layer over a training, relative to its weights, as Drozdzal 2016 drew them.

Norms are measured on some steps of an epoch only, to cost little (`benchmarks/gradient_flow.py`). The gradient is that
of the loss, before it is clipped; the step is what the optimiser made of it, weight decay included.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from segpipe.files import write_table
from segpipe.nets.gradient import Layer, gradients, layers_in_order, relative_norms
from segpipe.training.task import SegmentationTask

MEASURED = 5  # steps of an epoch
COLUMNS = ("epoch", "step", "layer", "stage", "name", "relative_gradient", "relative_step")


class GradientFlow(pl.Callback):
    """Writes `gradient_flow.csv`, a line per epoch and layer.

    What was measured travels in the checkpoint, as the rows of `metrics.csv` do.

    Args:
        folder: the run's folder.
        steps_per_epoch: of the run.
    """

    def __init__(self, folder: Path, steps_per_epoch: int) -> None:
        self.folder, self.every = folder, max(1, steps_per_epoch // MEASURED)
        self.layers: list[Layer] = []
        self.before: list[Tensor] | None = None
        self.measured: list[Tensor] = []  # of this epoch, (2, layers) each
        self.epochs: list[tuple[int, int]] = []  # number, and the steps that were done at its end
        self.norms: list[list[list[float]]] = []  # per epoch, of gradient and step, per layer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds the layers."""
        assert isinstance(pl_module, SegmentationTask)
        plan = pl_module.plan
        patch = [voxels for axis, voxels in enumerate(plan.patch) if axis != plan.slice_axis]
        self.layers = layers_in_order(pl_module.network, (len(plan.channels), *patch))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measures the gradient and keeps the weights, on some steps."""
        if trainer.global_step % self.every:
            return
        weights = [layer.weight.detach() for layer in self.layers]
        self.measured.append(relative_norms(gradients(self.layers), weights))
        self.before = [weight.clone() for weight in weights]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measures the step that the optimiser made."""
        if self.before is None:
            return
        pairs = zip(self.layers, self.before, strict=True)
        steps = [layer.weight.detach() - before for layer, before in pairs]
        self.measured[-1] = torch.stack([self.measured[-1], relative_norms(steps, self.before)])
        self.before = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the epoch's means."""
        if self.measured:
            self.epochs.append((trainer.current_epoch, trainer.global_step))
            self.norms.append(torch.stack(self.measured).mean(0).tolist())
        self.measured = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the table so far."""
        self._write()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the table."""
        self._write()

    def _write(self) -> None:
        rows = []
        for (epoch, step), norms in zip(self.epochs, self.norms, strict=True):
            for number, (layer, *pair) in enumerate(zip(self.layers, *norms, strict=True)):
                values = [f"{value:.4g}" for value in pair]
                rows.append([epoch, step, number, layer.stage, layer.name, *values])
        write_table(self.folder / "gradient_flow.csv", COLUMNS, rows)

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return {"epochs": self.epochs, "norms": self.norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what a resumed run had measured."""
        self.epochs, self.norms = list(state_dict["epochs"]), list(state_dict["norms"])
