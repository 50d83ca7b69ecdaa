"""The gradient and the step of every layer over a training as heat maps (Drozdzal 2016)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from segpipe.files import read_table
from segpipe.reporting.figures import save

FILE = "gradient_flow.csv"
TITLES = {"relative_gradient": "|grad W| / |W|", "relative_step": "|dW| / |W|"}


@dataclass(frozen=True)
class _Flow:
    """The content of `gradient_flow.csv`.

    Attributes:
        epochs: their numbers.
        stages: the stage of each layer, input side first.
        values: the values of each column of `TITLES`.
    """

    epochs: list[int]
    stages: list[str]
    values: dict[str, Float[np.ndarray, "layers epochs"]]


def draw_gradient_flow(folder: Path) -> None:
    """Draw `gradient_flow.png` from a run's `gradient_flow.csv`, if there is one.

    The picture shows layers against epochs, the input side on top, the bottleneck marked.
    """
    flow = _read(folder / FILE)
    if flow is None:
        return
    figure = Figure(figsize=(12, 2 + 0.09 * len(flow.stages)), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2, sharey=True), TITLES, strict=True):
        _draw_map(axes, flow, flow.values[column])
        axes.set_title(TITLES[column])
    title = "gradient and step of each layer, relative to its weights: input side on top"
    figure.suptitle(title, fontsize=11)
    save(figure, folder / "gradient_flow.png")


def _read(file: Path) -> _Flow | None:
    """Return what was measured; None where there is no file, or nothing in it."""
    if not file.is_file():
        return None
    rows = read_table(file)
    if not rows:
        return None
    epochs = list(dict.fromkeys(int(row["epoch"]) for row in rows))
    stages = [row["stage"] for row in rows[: len(rows) // len(epochs)]]
    values = {}
    for column in TITLES:
        flat = np.array([float(row[column]) for row in rows])
        values[column] = flat.reshape(len(epochs), len(stages)).T
    return _Flow(epochs, stages, values)


def _draw_map(axes: Axes, flow: _Flow, values: Float[np.ndarray, "layers epochs"]) -> None:
    shown = np.ma.masked_less_equal(np.nan_to_num(values), 0)  # masked values are black
    positive = shown.compressed() if shown.count() else np.ones(1)
    lowest = float(positive.min())
    norm = LogNorm(lowest, float(max(positive.max(), 1.01 * lowest)))
    axes.set_facecolor("black")
    image = axes.imshow(
        shown,
        aspect="auto",
        interpolation="nearest",
        norm=norm,
        extent=(flow.epochs[0] - 0.5, flow.epochs[-1] + 0.5, len(flow.stages) - 0.5, -0.5),
        cmap="viridis",
    )
    axes.figure.colorbar(image, ax=axes, pad=0.01)
    axes.set_xlabel("epoch")
    _mark_stages(axes, flow.stages)
    _mark_bottleneck(axes, flow.stages)


def _mark_stages(axes: Axes, stages: Sequence[str]) -> None:
    """Label the first layer of each stage."""
    edges = []
    names = []
    for index, stage in enumerate(stages):
        if index == 0 or stage != stages[index - 1]:
            edges.append(index - 0.5)
            names.append(stage)
    axes.set_yticks(edges, names, fontsize=8)


def _mark_bottleneck(axes: Axes, stages: Sequence[str]) -> None:
    middle = _bottleneck(stages)
    axes.axhline(middle, color="white", linewidth=1, linestyle="--")
    axes.annotate(
        "bottleneck",
        (1, middle),
        (-4, 1),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color="white",
        fontsize=8,
        ha="right",
        va="bottom",
    )


def _bottleneck(stages: Sequence[str]) -> float:
    """Return the middle of the layers of the coarsest encoder stage; of other networks, of all."""
    encoder = [stage for stage in stages if stage.startswith("encoder ")]
    if not encoder:
        return (len(stages) - 1) / 2
    return float(np.flatnonzero(np.array(stages) == encoder[-1]).mean())
