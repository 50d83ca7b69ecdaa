"""Pictures of what was found in networks: gradient against depth, lesions, landscapes, robustness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from segpipe.reporting.pictures import COLOURS, save

LOSS = "Dice loss + cross-entropy"
SHORT = {"none": ("black", "-"), "residual": (COLOURS[4], "-"), "dense": (COLOURS[2], "--")}


@dataclass(frozen=True)
class Profile:
    """The gradient of one kind of network against depth.

    Attributes:
        long_skips: of the network.
        short_skips: likewise.
        gradient: of each layer, relative to its weights, input side first.
        bottleneck: place of the bottleneck among the layers.
    """

    long_skips: str
    short_skips: str
    gradient: Float[np.ndarray, " layers"]
    bottleneck: float


def draw_depth(profiles: Sequence[Profile], made: str, picture: Path) -> None:
    """A panel for each kind of long skip, a line for each kind of short skip, the bottleneck dotted.

    Args:
        profiles: in any order.
        made: what the networks are, for the title.
        picture: PNG to write.
    """
    kinds = list(dict.fromkeys(profile.long_skips for profile in profiles))
    figure = Figure(figsize=(1.5 + 3.7 * len(kinds), 3.9), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(kinds), sharey=True, squeeze=False))
    for axes, kind in zip(panels, kinds, strict=True):
        for profile in (one for one in profiles if one.long_skips == kind):
            colour, dashes = SHORT[profile.short_skips]
            shown = np.where(profile.gradient > 0, profile.gradient, np.nan)
            axes.plot(
                shown,
                color=colour,
                linestyle=dashes,
                linewidth=1.7,
                label=f"short skips: {profile.short_skips}",
            )
            axes.axvline(profile.bottleneck, color=colour, linestyle=":", linewidth=0.8)
        axes.set(
            yscale="log", title=f"long skips: {kind}", xlabel="layer, input side to output side"
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("|grad W| / |W|")
    panels[0].legend(fontsize=8, loc="lower right")
    figure.suptitle(
        f"gradient of each layer at initialisation ({made}); dotted: bottleneck", fontsize=10
    )
    save(figure, picture)


@dataclass(frozen=True)
class Loss:
    """What is lost when one long skip is replaced.

    Attributes:
        skip: which one.
        size: of it, voxels along each axis.
        lesion: by what.
        dice: the loss of the mean over targets of means over cases.
        nsd: likewise.
        cases: per case the mean loss over its targets, of Dice and NSD.
    """

    skip: str
    size: tuple[int, ...]
    lesion: str
    dice: float
    nsd: float
    cases: Float[np.ndarray, "2 cases"]


def draw_lesions(losses: Sequence[Loss], title: str, picture: Path) -> None:
    """Bars of what is lost without each skip, finest first, and a dot for each case.

    Args:
        losses: skip by skip, the same lesions of each.
        title: stands above the picture.
        picture: PNG to write.
    """
    skips = list(dict.fromkeys(one.skip for one in losses))
    kinds = list(dict.fromkeys(one.lesion for one in losses))
    figure = Figure(figsize=(3 + 2.6 * len(skips), 4.2), layout="constrained")
    for number, (axes, what) in enumerate(
        zip(figure.subplots(1, 2), ("Dice lost", "NSD lost"), strict=True)
    ):
        for loss in losses:
            turn = kinds.index(loss.lesion)
            at = skips.index(loss.skip) + 0.8 * ((turn + 0.5) / len(kinds) - 0.5)
            colour = COLOURS[(4, 0, 2)[turn]]
            label = loss.lesion if loss.skip == skips[0] else None
            axes.bar(
                at,
                (loss.dice, loss.nsd)[number],
                0.7 / len(kinds),
                color=colour,
                alpha=0.75,
                label=label,
            )
            spread = at + 0.35 / len(kinds) * np.linspace(-1, 1, loss.cases.shape[1] + 2)[1:-1]
            axes.plot(spread, loss.cases[number], ".", color="black", markersize=3, alpha=0.6)
        names = {one.skip: f"{one.skip}\n{'x'.join(map(str, one.size))}" for one in losses}
        axes.set_xticks(range(len(skips)), [names[skip] for skip in skips], fontsize=8)
        axes.set_ylabel(what)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.grid(axis="y", alpha=0.3)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        title="replaced by",
        fontsize=8,
        loc="outside right upper",
    )
    figure.suptitle(title, fontsize=10)
    save(figure, picture)


def draw_landscapes(
    names: Sequence[str], places: np.ndarray, surfaces: Sequence[np.ndarray], folder: Path
) -> None:
    """`profile.png`, and of planes also `contour.png` and `surface.png`; all networks on one scale.

    Args:
        names: of the networks.
        places: along each direction, in lengths of each filter.
        surfaces: per network the loss, `(places,)` or `(places, places)`.
        folder: to write to.
    """
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes, middle = figure.add_subplot(), len(places) // 2
    for number, (name, surface) in enumerate(zip(names, surfaces, strict=True)):
        colour = COLOURS[(4, 5, 2, 0, 6, 1, 3)[number % len(COLOURS)]]
        axes.plot(
            places, surface if surface.ndim == 1 else surface[:, middle], color=colour, label=name
        )
        if surface.ndim == 2:
            axes.plot(
                places, surface[middle], color=colour, linestyle="--", label="... second direction"
            )
    axes.set(
        yscale="log",
        xlabel="along a random direction, in lengths of each filter",
        ylabel="Dice loss + cross-entropy",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, folder / "profile.png")
    if surfaces[0].ndim == 2:
        _draw_planes(names, places, surfaces, folder)


def _draw_planes(
    names: Sequence[str], places: np.ndarray, surfaces: Sequence[np.ndarray], folder: Path
) -> None:
    lowest, highest = (float(of([of(surface) for surface in surfaces])) for of in (np.min, np.max))
    levels = np.geomspace(lowest, max(highest, 1.01 * lowest), 25)
    flat = Figure(figsize=(1 + 3.9 * len(names), 4.2), layout="constrained")
    raised = Figure(figsize=(4.4 * len(names), 4.4))
    raised.subplots_adjust(
        left=0.01, right=0.94, bottom=0.06, top=0.92, wspace=0.12
    )  # what is 3D, no layout knows
    ends = [float(places[0]), 0.0, float(places[-1])]
    panels = np.ravel(flat.subplots(1, len(names), sharey=True, squeeze=False))
    for number, (name, surface) in enumerate(zip(names, surfaces, strict=True)):
        norm = LogNorm(levels[0], levels[-1])
        panels[number].contourf(places, places, surface.T, levels, norm=norm, cmap="viridis")
        panels[number].contour(
            places, places, surface.T, levels, colors="white", linewidths=0.4, norm=norm
        )
        panels[number].plot(0, 0, "+", color="white")
        panels[number].set(title=name, aspect="equal", xlabel="first direction")
        solid: Any = raised.add_subplot(1, len(names), number + 1, projection="3d")
        x, y = np.meshgrid(places, places, indexing="ij")
        solid.plot_surface(
            x, y, np.log10(surface), cmap="viridis", vmin=np.log10(lowest), vmax=np.log10(highest)
        )
        solid.set(title=name, zlim=(np.log10(lowest), np.log10(highest)), zlabel="log10 loss")
        solid.set(xticks=ends, yticks=ends, xlabel="first direction", ylabel="second direction")
    panels[0].set_ylabel("second direction")
    flat.colorbar(
        ScalarMappable(LogNorm(levels[0], levels[-1]), "viridis"),
        ax=list(panels),
        label=LOSS,
        format="%.2g",
        shrink=0.85,
    )
    save(flat, folder / "contour.png")
    save(raised, folder / "surface.png")


def draw_robustness(
    names: Sequence[str],
    dice: Mapping[str, tuple[Sequence[float], Float[np.ndarray, "runs strengths"]]],
    picture: Path,
) -> None:
    """A panel for each change, a line for each network.

    Args:
        names: of the networks.
        dice: of each change, by its axis label, its strengths and the mean Dice.
        picture: PNG to write.
    """
    figure = Figure(figsize=(2 + 2.9 * len(dice), 3.8), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(dice), sharey=True, squeeze=False))
    for axes, (label, (strengths, values)) in zip(panels, dice.items(), strict=True):
        for number, name in enumerate(names):
            colour = COLOURS[(4, 5, 2, 0, 6, 1, 3)[number % len(COLOURS)]]
            axes.plot(strengths, values[number], marker=".", color=colour, label=name)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("mean Dice")
    panels[0].legend(fontsize=8)
    save(figure, picture)


def draw_changes(
    rows: Mapping[str, Sequence[tuple[str, Float[np.ndarray, "x y"]]]], picture: Path
) -> None:
    """How one slice looks under each change: a row for each, ever stronger to the right."""
    wide = max(len(row) for row in rows.values())
    figure = Figure(figsize=(1.9 * wide, 2.1 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), wide, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for line, (name, row) in zip(panels, rows.items(), strict=True):
        low, high = np.percentile(row[0][1], [0.5, 99.5])
        for axes, (strength, image) in zip(line, row, strict=False):
            axes.imshow(image.T[::-1, ::-1], cmap="gray", vmin=low, vmax=high, interpolation="auto")
            axes.set_title(f"{name} {strength}", fontsize=8)
    save(figure, picture)
