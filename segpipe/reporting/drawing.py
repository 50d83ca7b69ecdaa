"""A network as a picture: its stages as a U, its skips as arrows in their registered colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from segpipe.nets.describe import Stage
from segpipe.registry import LONG_SKIPS, SHORT_SKIPS, Registry
from segpipe.reporting.figures import save
from segpipe.text import times

NEUTRAL = "#666666"  # of a skip that has no colour of its own, or is not registered here
ENCODER = "#E8EEF4"
DECODER = "#FBF1E2"
FOREIGN = "#EEEEEE"
WIDTH = 2.9  # of a box
HEIGHT = 0.62
INDENT = 0.55  # by which each level moves inwards
LEVEL_HEIGHT = 0.95
FOREIGN_HEIGHT = 0.75  # from one box of a foreign network to the next
BOX_STYLE: dict[str, Any] = {
    "boxstyle": "round,pad=0,rounding_size=0.08",
    "edgecolor": "0.35",
    "linewidth": 0.9,
}
Point = tuple[float, float]


def colour_of(registry: Registry, name: str) -> str:
    """Return the colour in which an entry is drawn, as `#RRGGBB`."""
    entry = registry.entries().get(name)
    if entry is None or not entry.colour:
        return NEUTRAL
    return entry.colour


def draw_network(stages: Sequence[Stage], title: str, picture: Path) -> None:
    """Draw a network's stages with their channels, size and parameters, and all skips.

    Args:
        stages: as `describe` gives them; those of a foreign network are drawn one below the other.
        title: text above the picture.
        picture: PNG to write.
    """
    levels = sum(stage.name.startswith("encoder ") for stage in stages)
    rows = levels or FOREIGN_HEIGHT * len(stages)
    figure = Figure(figsize=(11, 1.6 + LEVEL_HEIGHT * rows), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    if levels:
        _draw_u(axes, {stage.name: stage for stage in stages}, _Layout(levels))
    else:
        for index, stage in enumerate(stages):
            _draw_box(axes, (0.0, -FOREIGN_HEIGHT * index), stage, FOREIGN)
        axes.set_xlim(-1.5 * WIDTH, 1.5 * WIDTH)
    axes.set_title(title, fontsize=11)
    axes.autoscale_view(scalex=bool(levels))
    save(figure, picture)


@dataclass(frozen=True)
class _Layout:
    """The positions of the boxes of a U-Net.

    Attributes:
        levels: the levels of the encoder.
    """

    levels: int

    @property
    def deepest(self) -> int:
        """The coarsest level, which has no stage of a decoder."""
        return self.levels - 1

    def centre(self, part: str, level: int) -> Point:
        """Return the centre of a stage's box; the coarsest is between encoder and decoder."""
        right = 2 * INDENT * self.deepest + 1.9 * WIDTH
        if level == self.deepest:
            x = right / 2
        elif part == "encoder":
            x = INDENT * level
        else:
            x = right - INDENT * level
        return x, -LEVEL_HEIGHT * level


def _draw_u(axes: Axes, stages: dict[str, Stage], layout: _Layout) -> None:
    for level in range(layout.levels):
        _draw_box(axes, layout.centre("encoder", level), stages[f"encoder {level}"], ENCODER)
    for level in range(layout.deepest):
        encoder = layout.centre("encoder", level)
        decoder = layout.centre("decoder", level)
        stage = stages[f"decoder {level}"]
        _draw_box(axes, decoder, stage, DECODER)
        _draw_long_skip(axes, encoder, decoder, stage.long_skip)
        _draw_step(axes, encoder, layout.centre("encoder", level + 1))
        _draw_step(axes, layout.centre("decoder", level + 1), decoder)
    heads = [stage for name, stage in stages.items() if name.startswith("head")]
    training = f"; {len(heads)} heads in training" if len(heads) > 1 else ""
    logits = f"logits of {heads[0].channels} labels{training}"
    for part, text in (("encoder", "image"), ("decoder", logits)):
        x, y = layout.centre(part, 0)
        _draw_label(axes, (x, y + HEIGHT), text)


def _draw_box(axes: Axes, centre: Point, stage: Stage, colour: str) -> None:
    x, y = centre
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, facecolor=colour, **BOX_STYLE))
    title = f"{stage.name}:  {stage.channels} x {times(stage.size)}"
    axes.text(x, y + 0.12, title, ha="center", va="center", fontsize=8)
    size = f"{short(stage.parameters)} parameters, {short(stage.multiply_adds)} mult-adds"
    axes.text(x, y - 0.13, size, ha="center", va="center", fontsize=6.5, color="0.35")
    if stage.short_skip not in ("", "none"):
        _draw_short_skip(axes, centre, stage.short_skip, -1 if colour == ENCODER else 1)


def _draw_short_skip(axes: Axes, centre: Point, name: str, side: int) -> None:
    """Draw a short skip's arc beside a box: at its left (-1) or right (1)."""
    colour = colour_of(SHORT_SKIPS, name)
    x, y = centre
    edge = x + side * WIDTH / 2
    arrow = {
        "arrowstyle": "->",
        "connectionstyle": f"arc3,rad={side * -1.1}",
        "color": colour,
        "linewidth": 1.4,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", (edge, y - 0.2), (edge, y + 0.2), arrowprops=arrow)
    outwards = "right" if side < 0 else "left"
    text_x = edge + side * 0.44
    axes.text(text_x, y, name, fontsize=7, color=colour, ha=outwards, va="center")


def _draw_long_skip(axes: Axes, encoder: Point, decoder: Point, name: str) -> None:
    """Draw the arrow from an encoder's box to the decoder's of the same level."""
    y = encoder[1]
    start = encoder[0] + WIDTH / 2
    end = decoder[0] - WIDTH / 2
    colour = colour_of(LONG_SKIPS, name)
    middle = ((start + end) / 2, y + 0.14)
    if name == "none":
        axes.plot([start, end], [y, y], color=colour, linewidth=1, linestyle=(0, (1, 4)))
        _draw_label(axes, middle, "no long skip", colour)
    else:
        _draw_arrow(axes, (start, y), (end, y), colour, 2.0)
        _draw_label(axes, middle, name, colour)


def _draw_step(axes: Axes, start: Point, end: Point) -> None:
    """Draw an arrow from the lower or upper edge of a box to that of the next level."""
    down = 0.5 * HEIGHT * (end[1] - start[1]) / LEVEL_HEIGHT
    _draw_arrow(axes, (start[0], start[1] + down), (end[0], end[1] - down))


def _draw_arrow(
    axes: Axes, start: Point, end: Point, colour: str = "0.35", width: float = 1.1
) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=arrow)


def _draw_label(axes: Axes, centre: Point, text: str, colour: str = "0.2") -> None:
    axes.text(*centre, text, ha="center", va="center", fontsize=8, color=colour)


def short(number: int) -> str:
    """Return a count in three digits, as `1.4 M`."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)
