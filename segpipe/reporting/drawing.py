"""A network as a picture: its stages as a U, its skips as arrows of their own colour."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from segpipe.nets.describe import Stage
from segpipe.reporting.pictures import save

# Okabe and Ito 2008
COLOURS = {
    "add": "#0072B2",
    "concat": "#009E73",
    "gate": "#D55E00",
    "residual": "#0072B2",
    "dense": "#009E73",
}
ENCODER, DECODER, OTHER = "#E8EEF4", "#FBF1E2", "#EEEEEE"
WIDTH, HEIGHT, STEP = 2.9, 0.62, 0.55  # of a box, and how far each level moves inwards
PROPERTIES = {"boxstyle": "round,pad=0,rounding_size=0.08", "edgecolor": "0.35", "linewidth": 0.9}


def draw_network(stages: Sequence[Stage], title: str, picture: Path) -> None:
    """Draws the stages of a network, each with its channels, size and parameters, and the skips between and inside.

    Args:
        stages: as `describe` gives them; those of a foreign network are drawn one under the other.
        title: stands above the picture.
        picture: PNG to write.
    """
    levels = sum(stage.name.startswith("encoder") for stage in stages)
    figure = Figure(
        figsize=(11, 1.6 + 0.95 * max(levels, 0.75 * len(stages) * (levels == 0))),
        layout="constrained",
    )
    axes = figure.add_subplot()
    axes.set_axis_off()
    if levels:
        _draw_u(axes, {stage.name: stage for stage in stages}, levels)
    else:
        for place, stage in enumerate(stages):
            _box(axes, 0, -0.75 * place, stage, OTHER)
        axes.set_xlim(-1.5 * WIDTH, 1.5 * WIDTH)
    axes.set_title(title, fontsize=11)
    axes.autoscale_view(scalex=bool(levels))
    save(figure, picture)


def _draw_u(axes: Axes, stages: dict[str, Stage], levels: int) -> None:
    deepest = levels - 1
    right = 2 * STEP * deepest + 1.9 * WIDTH
    for level in range(levels):
        _box(axes, *_place("encoder", level, right, deepest), stages[f"encoder {level}"], ENCODER)
        if level < deepest:
            _box(
                axes, *_place("decoder", level, right, deepest), stages[f"decoder {level}"], DECODER
            )
            _long_skip(axes, level, right, deepest, stages[f"decoder {level}"].long_skip)
    for level in range(deepest):
        _arrow(
            axes,
            _place("encoder", level, right, deepest),
            _place("encoder", level + 1, right, deepest),
        )
        below = "decoder" if level + 1 < deepest else "encoder"
        _arrow(
            axes, _place(below, level + 1, right, deepest), _place("decoder", level, right, deepest)
        )
    x, y = _place("decoder", 0, right, deepest)
    heads = [stage for name, stage in stages.items() if name.startswith("head")]
    more = f"; {len(heads)} heads in training" if len(heads) > 1 else ""
    _label(axes, x, y + 0.62, f"logits of {heads[0].channels} labels{more}")
    x, y = _place("encoder", 0, right, deepest)
    _label(axes, x, y + 0.62, "image")


def _place(part: str, level: int, right: float, deepest: int) -> tuple[float, float]:
    """The middle of a stage's box; the coarsest encoder stage stands between both sides."""
    x = (
        right / 2
        if level == deepest
        else STEP * level
        if part == "encoder"
        else right - STEP * level
    )
    return x, -0.95 * level


def _box(axes: Axes, x: float, y: float, stage: Stage, colour: str) -> None:
    corner = x - WIDTH / 2, y - HEIGHT / 2
    axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, facecolor=colour, **PROPERTIES))
    size = "x".join(str(voxels) for voxels in stage.size)
    axes.text(
        x,
        y + 0.12,
        f"{stage.name}:  {stage.channels} x {size}",
        ha="center",
        va="center",
        fontsize=8,
    )
    small = f"{short(stage.parameters)} parameters, {short(stage.multiply_adds)} mult-adds"
    axes.text(x, y - 0.13, small, ha="center", va="center", fontsize=6.5, color="0.35")
    if stage.short_skip not in ("", "none"):
        side = -1 if colour == ENCODER else 1
        edge = x + side * WIDTH / 2
        style = {
            "arrowstyle": "->",
            "color": COLOURS[stage.short_skip],
            "linewidth": 1.4,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        bend = f"arc3,rad={side * -1.1}"
        axes.annotate(
            "", (edge, y - 0.2), (edge, y + 0.2), arrowprops={**style, "connectionstyle": bend}
        )
        outwards = "right" if side < 0 else "left"
        colour = COLOURS[stage.short_skip]
        axes.text(
            edge + side * 0.44,
            y,
            stage.short_skip,
            fontsize=7,
            color=colour,
            ha=outwards,
            va="center",
        )


def _long_skip(axes: Axes, level: int, right: float, deepest: int, kind: str) -> None:
    (start, y), (end, _) = (_place(part, level, right, deepest) for part in ("encoder", "decoder"))
    start, end = start + WIDTH / 2, end - WIDTH / 2
    if kind == "none":
        axes.plot([start, end], [y, y], color="0.7", linewidth=1, linestyle=(0, (1, 4)))
    else:
        _arrow(axes, (start, y), (end, y), COLOURS[kind], 2.0, edges=False)
    _label(
        axes,
        (start + end) / 2,
        y + 0.14,
        "no long skip" if kind == "none" else kind,
        COLOURS.get(kind, "0.6"),
    )


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = "0.35",
    width: float = 1.1,
    edges: bool = True,
) -> None:
    """From the lower or upper edge of one box to that of another, or between two points."""
    down = (end[1] - start[1]) * 0.5 * HEIGHT / 0.95 if edges else 0
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end[0], end[1] - down), (start[0], start[1] + down), arrowprops=style)


def _label(axes: Axes, x: float, y: float, text: str, colour: str = "0.2") -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)


def short(number: int) -> str:
    """A count in three digits: 1.4 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)
