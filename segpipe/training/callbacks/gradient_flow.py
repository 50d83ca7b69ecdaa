"""Gradient and step of every layer over a training, relative to its weights (Drozdzal 2016).

Norms are measured on some steps of an epoch only, to cost little (`benchmarks/gradient_flow.py`).
The gradient is that of the loss, before it is clipped; the step is what the optimiser made of it,
weight decay included.
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

MEASURED_STEPS = 5  # of an epoch
COLUMNS = ("epoch", "step", "layer", "stage", "name", "relative_gradient", "relative_step")


class GradientFlow(pl.Callback):
    """A callback that writes `gradient_flow.csv`, a row per epoch and layer.

    Measurements are kept in the checkpoint, as the rows of `metrics.csv` are.

    Args:
        folder: the run's folder.
        steps_per_epoch: optimiser steps of an epoch.
    """

    def __init__(self, folder: Path, steps_per_epoch: int) -> None:
        self.folder = folder
        self.interval = max(1, steps_per_epoch // MEASURED_STEPS)
        self.layers: list[Layer] = []
        self.weights_before: list[Tensor] | None = None
        self.measured: list[Tensor] = []  # of this epoch, (2, layers) each
        self.epochs: list[tuple[int, int]] = []  # number, and steps done at its end
        self.norms: list[list[list[float]]] = []  # per epoch, of gradient and step, per layer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers."""
        assert isinstance(pl_module, SegmentationTask)
        plan = pl_module.plan
        shape = (len(plan.channels), *plan.network_patch)
        self.layers = layers_in_order(pl_module.network, shape)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the gradient and keep the weights, on some steps."""
        if trainer.global_step % self.interval:
            return
        weights = [layer.weight.detach() for layer in self.layers]
        self.measured.append(relative_norms(gradients(self.layers), weights))
        self.weights_before = [weight.clone() for weight in weights]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure the step that the optimiser made."""
        if self.weights_before is None:
            return
        steps = []
        for layer, before in zip(self.layers, self.weights_before, strict=True):
            steps.append(layer.weight.detach() - before)
        step_norms = relative_norms(steps, self.weights_before)
        self.measured[-1] = torch.stack([self.measured[-1], step_norms])
        self.weights_before = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch's means."""
        if self.measured:
            self.epochs.append((trainer.current_epoch, trainer.global_step))
            self.norms.append(torch.stack(self.measured).mean(0).tolist())
        self.measured = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table so far."""
        self._write()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table."""
        self._write()

    def _write(self) -> None:
        """Write a row per epoch and layer, the layers in the order in which they run."""
        rows = []
        for (epoch, step), (gradient_norms, step_norms) in zip(
            self.epochs, self.norms, strict=True
        ):
            for index, layer in enumerate(self.layers):
                norms = (f"{gradient_norms[index]:.4g}", f"{step_norms[index]:.4g}")
                rows.append((epoch, step, index, layer.stage, layer.name, *norms))
        write_table(self.folder / "gradient_flow.csv", COLUMNS, rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements so far."""
        return {"epochs": self.epochs, "norms": self.norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the measurements of a resumed run."""
        self.epochs = list(state_dict["epochs"])
        self.norms = list(state_dict["norms"])
