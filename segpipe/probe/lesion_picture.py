"""What is lost without each long skip as bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segpipe.reporting.figures import save
from segpipe.reporting.pictures import COLOURS
from segpipe.text import times

LESION_COLOURS = (COLOURS[4], COLOURS[0], COLOURS[2])
GROUP_WIDTH = 0.8  # of the bars of one skip


@dataclass(frozen=True)
class SkipLoss:
    """What is lost when one long skip is replaced.

    Attributes:
        skip: name of the long skip.
        size: voxels along each axis.
        lesion: what replaces it.
        dice: loss of the mean Dice (over cases, then over targets).
        nsd: loss of the mean NSD, in the same way.
        cases: the mean loss over targets of Dice and NSD of each case.
    """

    skip: str
    size: tuple[int, ...]
    lesion: str
    dice: float
    nsd: float
    cases: Float[np.ndarray, "2 cases"]


def draw_lesions(losses: Sequence[SkipLoss], title: str, picture: Path) -> None:
    """Draw bars of what is lost without each skip, finest first, and a dot for each case.

    Args:
        losses: skip by skip, with the same lesions for each.
        title: text above the picture.
        picture: PNG to write.
    """
    ticks = {loss.skip: f"{loss.skip}\n{times(loss.size)}" for loss in losses}
    figure = Figure(figsize=(3 + 2.6 * len(ticks), 4.2), layout="constrained")
    for index, axes in enumerate(figure.subplots(1, 2)):
        _draw_bars(axes, losses, index)
        axes.set_xticks(range(len(ticks)), list(ticks.values()), fontsize=8)
        axes.set_ylabel(("Dice lost", "NSD lost")[index])
        axes.axhline(0, color="black", linewidth=0.8)
        axes.grid(axis="y", alpha=0.3)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, title="replaced by", fontsize=8, loc="outside right upper")
    figure.suptitle(title, fontsize=10)
    save(figure, picture)


def _draw_bars(axes: Axes, losses: Sequence[SkipLoss], index: int) -> None:
    """Draw the losses of Dice (0) or NSD (1)."""
    skips = list(dict.fromkeys(loss.skip for loss in losses))
    lesions = list(dict.fromkeys(loss.lesion for loss in losses))
    for loss in losses:
        turn = lesions.index(loss.lesion)
        offset = GROUP_WIDTH * ((turn + 0.5) / len(lesions) - 0.5)
        x = skips.index(loss.skip) + offset
        axes.bar(
            x,
            (loss.dice, loss.nsd)[index],
            0.7 / len(lesions),
            color=LESION_COLOURS[turn],
            alpha=0.75,
            label=loss.lesion if loss.skip == skips[0] else None,
        )
        cases = loss.cases[index]
        spread = np.linspace(-1, 1, len(cases) + 2)[1:-1]
        dots = x + 0.35 / len(lesions) * spread
        axes.plot(dots, cases, ".", color="black", markersize=3, alpha=0.6)
