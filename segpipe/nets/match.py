"""Equal capacity: a variant's channels scaled until it is as large as the network with all skips.

Removing a skip removes parameters too, so an unmatched ablation compares sizes as well as skips.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from segpipe.config.model import Model
from segpipe.errors import ConfigError
from segpipe.nets.build import PAIR, build_meta
from segpipe.nets.describe import count_parameters

TOLERANCE = 0.01
NEAREST = 0.05  # up to which the nearest channels are taken where none come within the tolerance
# channels are rounded to multiples of the first of these that comes within the tolerance
MULTIPLES = (8, 4, 2, 1)
LOWEST_FACTOR = 1 / 8  # of the channels
HIGHEST_FACTOR = 8.0
HALVINGS = 20
FEW_LEVELS = 3  # of which all combinations of five widths can be measured


@dataclass(frozen=True)
class Match:
    """The result of matching.

    Attributes:
        model: the variant with the channels that were found; it is not matched again.
        what: `params` or `flops`.
        reference: parameters, or multiply-adds of a patch, of the network with all skips.
        reached: the same number of `model`.
    """

    model: Model
    what: str
    reference: int
    reached: int

    @property
    def deviation(self) -> float:
        """Relative deviation of the variant from the reference."""
        return self.reached / self.reference - 1

    @property
    def is_close(self) -> bool:
        """Whether the variant is within 1 % of the reference."""
        return abs(self.deviation) <= TOLERANCE


def match(
    model: Model,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    patch: Sequence[int],
) -> Match:
    """Scale a model's channels to within 1 % of the reference, as `model.match` asks.

    Where none come so near, as of few channels, the nearest within 5 % are taken.

    The reference has the same options with every long skip `concat` and every short skip on:
    `dense` where there is a growth rate, else `residual`.

    Args:
        model: the options; `match` is `params` or `flops`.
        in_channels: image channels.
        out_channels: labels, the background included.
        strides: the stride of each downsampling, along each axis.
        kernels: the kernel of each level, along each axis.
        patch: voxels along each axis.

    Raises:
        ConfigError: if no channels come that near.
    """
    search = _Search(model, (in_channels, out_channels, strides, kernels), patch)
    for multiple in MULTIPLES:
        search.scale_all(multiple)
        best = search.best()
        if best.is_close:
            return best
    search.try_neighbours()
    best = search.best()
    if abs(best.deviation) <= NEAREST:
        return best
    raise ConfigError(
        f"model.match={model.match}: no channels come within {NEAREST:.0%} of the "
        f"{best.reference:,} of the network with all skips on; the nearest, "
        f"{best.model.widths}, are {best.deviation:+.1%} off: give wider model.channels"
    )


class _Search:
    """The sizes of a model with different channels, in search of the one nearest to the goal.

    Args:
        model: the options.
        shape: image channels, labels, strides and kernels, as `build` takes them.
        patch: voxels along each axis.
    """

    def __init__(self, model: Model, shape: tuple, patch: Sequence[int]) -> None:
        self.model = model
        self.shape = shape
        self.patch = patch
        self.widths = [*model.widths, *(model.decoder_channels or [])]
        skips = {
            "long_skips": "concat",
            "short_skips": "dense" if model.growth_rate else "residual",
            "short_skips_in": "both",
        }
        self.goal = self._measure(model.model_copy(update=skips))
        self.sizes: dict[tuple[int, ...], int] = {}
        self.size(self.widths)

    def best(self) -> Match:
        """Return the model nearest to the goal of all that were measured."""
        best = min(self.sizes, key=lambda widths: abs(self.sizes[widths] - self.goal))
        return Match(self._with(best), self.model.match, self.goal, self.sizes[best])

    def scale_all(self, multiple: int) -> None:
        """Scale all channels by one factor, found by bisection, then widen level by level."""
        low = LOWEST_FACTOR
        high = HIGHEST_FACTOR
        for _ in range(HALVINGS):
            middle = (low * high) ** 0.5
            if self.size(self._scaled(middle, multiple)) < self.goal:
                low = middle
            else:
                high = middle
        widths = self._scaled(low, multiple)
        for index in reversed(range(len(widths))):
            widths[index] += multiple
            if self.size(widths) > self.goal:
                widths[index] -= multiple

    def try_neighbours(self) -> None:
        """Measure models with a channel or two more or less at any levels than the nearest one."""
        found = self.best().model
        nearest = [*found.widths, *(found.decoder_channels or [])]
        steps = (-1, 1, 0, -2, 2) if len(nearest) <= FEW_LEVELS else (-1, 1, 0)
        for change in itertools.product(steps, repeat=len(nearest)):
            widths = np.add(nearest, change).tolist()
            if min(widths) > 0 and not self.best().is_close:
                self.size(widths)

    def size(self, widths: Sequence[int]) -> int:
        """Return the size of the model with these channels, measured once."""
        key = tuple(widths)
        if key not in self.sizes:
            self.sizes[key] = self._measure(self._with(key))
        return self.sizes[key]

    def _scaled(self, factor: float, multiple: int) -> list[int]:
        return [max(multiple, round(width * factor / multiple) * multiple) for width in self.widths]

    def _measure(self, model: Model) -> int:
        """Return the parameters of a model, or its multiply-adds for one patch in training."""
        network = build_meta(model, *self.shape)
        if self.model.match == "params":
            return count_parameters(network)
        in_channels = self.shape[0]
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(PAIR, in_channels, *self.patch, device="meta"))
        return counter.get_total_flops() // 2 // PAIR

    def _with(self, widths: Sequence[int]) -> Model:
        """Return the model with these channels: the encoder's, then the decoder's."""
        levels = len(self.model.widths)
        channels = {
            "channels": list(widths[:levels]),
            "decoder_channels": list(widths[levels:]) or None,
            "match": "none",
        }
        return self.model.model_copy(update=channels)
