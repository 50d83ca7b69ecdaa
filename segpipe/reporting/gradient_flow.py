"""Gradient and step of every layer over a training as a heat map, as Drozdzal 2016 drew them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from segpipe.reporting.pictures import save

FILE = "gradient_flow.csv"
TITLES = {"relative_gradient": "|grad W| / |W|", "relative_step": "|dW| / |W|"}


def draw_gradient_flow(folder: Path) -> None:
    """Draw `gradient_flow.png` from a run's `gradient_flow.csv`, where there is one.

    The picture shows layer against epoch, the input side on top, the bottleneck marked.
    """
    file = folder / FILE
    if not file.is_file():
        return
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    if not rows:
        return
    epochs = list(dict.fromkeys(int(row["epoch"]) for row in rows))
    stages = [row["stage"] for row in rows if int(row["epoch"]) == epochs[0]]
    figure = Figure(figsize=(12, 2 + 0.09 * len(stages)), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2, sharey=True), TITLES, strict=True):
        values = np.array([float(row[column]) for row in rows])
        _draw_map(axes, stages, epochs, values.reshape(len(epochs), len(stages)).T)
        axes.set_title(TITLES[column])
    title = "gradient and step of each layer, relative to its weights: input side on top"
    figure.suptitle(title, fontsize=11)
    save(figure, folder / "gradient_flow.png")


def _draw_map(
    axes: Axes,
    stages: Sequence[str],
    epochs: Sequence[int],
    values: Float[np.ndarray, "layers epochs"],
) -> None:
    shown = np.ma.masked_less_equal(np.nan_to_num(values), 0)  # zeros are black
    positive = shown.compressed() if shown.count() else np.ones(1)
    lowest = float(positive.min())
    norm = LogNorm(lowest, float(max(positive.max(), 1.01 * lowest)))
    axes.set_facecolor("black")
    extent = (epochs[0] - 0.5, epochs[-1] + 0.5, len(stages) - 0.5, -0.5)
    image = axes.imshow(
        shown, aspect="auto", interpolation="nearest", norm=norm, extent=extent, cmap="viridis"
    )
    axes.figure.colorbar(image, ax=axes, pad=0.01)
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    axes.set_yticks([i - 0.5 for i in starts], [stages[i] for i in starts], fontsize=8)
    middle = _bottleneck(stages)
    axes.axhline(middle, color="white", linewidth=1, linestyle="--")
    style = {"color": "white", "fontsize": 8, "ha": "right", "va": "bottom"}
    axes.annotate(
        "bottleneck", (1, middle), (-4, 1), ("axes fraction", "data"), "offset points", **style
    )
    axes.set_xlabel("epoch")


def _bottleneck(stages: Sequence[str]) -> float:
    """Return the middle of the layers of the coarsest encoder stage; of other networks, of all."""
    encoder = [stage for stage in stages if stage.startswith("encoder")]
    coarsest = encoder[-1] if encoder else ""
    places = [i for i, stage in enumerate(stages) if stage == coarsest]
    return float(np.mean(places)) if places else (len(stages) - 1) / 2
