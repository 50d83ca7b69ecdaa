"""The gradient of each layer against depth as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segpipe.registry import SHORT_SKIPS
from segpipe.reporting.drawing import colour_of
from segpipe.reporting.figures import save

DASHES = ("-", "--", "-.")  # in turn, so that lines on top of each other are told apart


@dataclass(frozen=True)
class Profile:
    """The gradient of one kind of network against depth.

    Attributes:
        long_skips: the long skips of the network.
        short_skips: the short skips of the network.
        gradient: the gradient of each layer, relative to its weights, input side first.
        bottleneck: index of the middle of the coarsest layers.
    """

    long_skips: str
    short_skips: str
    gradient: Float[np.ndarray, " layers"]
    bottleneck: float


def draw_depth(profiles: Sequence[Profile], networks: str, picture: Path) -> None:
    """Draw a panel for each kind of long skip with a line for each kind of short skip.

    Args:
        profiles: the profiles, in any order.
        networks: what the networks have in common, for the title.
        picture: PNG to write.
    """
    kinds = list(dict.fromkeys(profile.long_skips for profile in profiles))
    figure = Figure(figsize=(1.5 + 3.7 * len(kinds), 3.9), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(kinds), sharey=True, squeeze=False))
    for axes, kind in zip(panels, kinds, strict=True):
        axes.set_yscale("log")
        axes.set_title(f"long skips: {kind}")
        axes.set_xlabel("layer, input side to output side")
        axes.grid(alpha=0.3)
        for profile in profiles:
            if profile.long_skips == kind:
                _draw_profile(axes, profile)
    panels[0].set_ylabel("|grad W| / |W|")
    panels[0].legend(fontsize=8, loc="lower right")
    title = f"gradient of each layer at initialisation ({networks}); dotted: bottleneck"
    figure.suptitle(title, fontsize=10)
    save(figure, picture)


def _draw_profile(axes: Axes, profile: Profile) -> None:
    names = SHORT_SKIPS.names()
    colour = colour_of(SHORT_SKIPS, profile.short_skips)
    dashes = DASHES[names.index(profile.short_skips) % len(DASHES)]
    axes.plot(
        np.where(profile.gradient > 0, profile.gradient, np.nan),
        color=colour,
        linestyle=dashes,
        linewidth=1.7,
        label=f"short skips: {profile.short_skips}",
    )
    axes.axvline(profile.bottleneck, color=colour, linestyle=":", linewidth=0.8)
