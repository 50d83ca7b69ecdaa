"""Gradient and step of every layer over a training, relative to its weights, as Drozdzal 2016 drew them.

Norms are measured on some steps of an epoch only, to cost little (`benchmarks/gradient_flow.py`). The gradient is that
of the loss, before it is clipped; the step is what the optimiser made of it, weight decay included.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import Optimizer

from segpipe.files import write_text
from segpipe.nets.gradient import Layer, bottleneck, gradients, layers_in_order, relative_norms
from segpipe.report.pictures import save
from segpipe.training.task import SegmentationTask

MEASURED = 5  # steps of an epoch
KINDS = {"gradient": "|grad W| / |W|", "step": "|dW| / |W|"}
COLUMNS = ("epoch", "step", "layer", "stage", "name", "relative_gradient", "relative_step")


class GradientFlow(pl.Callback):
    """Writes `gradient_flow.csv`, a line per epoch and layer, and draws it when training ends.

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
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
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
        """Writes the table and draws it."""
        self._write()
        if self.norms:
            values = np.array(self.norms).transpose(1, 2, 0)
            draw_gradient_flow(self.layers, [number for number, _ in self.epochs], values, self.folder)

    def _write(self) -> None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for (epoch, step), norms in zip(self.epochs, self.norms, strict=True):
            for number, (layer, *pair) in enumerate(zip(self.layers, *norms, strict=True)):
                table.writerow([epoch, step, number, layer.stage, layer.name, *(f"{value:.4g}" for value in pair)])
        write_text(self.folder / "gradient_flow.csv", text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return {"epochs": self.epochs, "norms": self.norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what a resumed run had measured."""
        self.epochs, self.norms = list(state_dict["epochs"]), list(state_dict["norms"])


def draw_gradient_flow(
    layers: Sequence[Layer], epochs: Sequence[int], values: Float[np.ndarray, "2 layers epochs"], folder: Path
) -> None:
    """Draws `gradient_flow.png`: layer against epoch, the input side on top, the bottleneck marked.

    Args:
        layers: in the order in which they run.
        epochs: their numbers.
        values: relative norms of gradient and step.
        folder: of the run.
    """
    figure = Figure(figsize=(12, 2 + 0.09 * len(layers)), layout="constrained")
    for axes, of_kind, title in zip(figure.subplots(1, 2, sharey=True), values, KINDS.values(), strict=True):
        _draw_map(axes, layers, epochs, of_kind)
        axes.set_title(title)
    figure.suptitle("gradient and step of each layer, relative to its weights: input side on top", fontsize=11)
    save(figure, folder / "gradient_flow.png")


def _draw_map(axes: Axes, layers: Sequence[Layer], epochs: Sequence[int], values: np.ndarray) -> None:
    shown = np.ma.masked_less_equal(np.nan_to_num(values), 0)  # nothing is black
    positive = shown.compressed() if shown.count() else np.ones(1)
    norm = LogNorm(float(positive.min()), float(max(positive.max(), 1.01 * positive.min())))
    axes.set_facecolor("black")
    edges = (epochs[0] - 0.5, epochs[-1] + 0.5, len(layers) - 0.5, -0.5)
    image = axes.imshow(shown, aspect="auto", interpolation="nearest", norm=norm, extent=edges, cmap="viridis")
    axes.figure.colorbar(image, ax=axes, pad=0.01)
    starts = [i for i, layer in enumerate(layers) if i == 0 or layer.stage != layers[i - 1].stage]
    axes.set_yticks([start - 0.5 for start in starts], [layers[start].stage for start in starts], fontsize=8)
    axes.axhline(bottleneck(layers), color="white", linewidth=1, linestyle="--")
    style = {"color": "white", "fontsize": 8, "ha": "right", "va": "bottom"}
    axes.annotate("bottleneck", (1, bottleneck(layers)), (-4, 1), ("axes fraction", "data"), "offset points", **style)
    axes.set_xlabel("epoch")
