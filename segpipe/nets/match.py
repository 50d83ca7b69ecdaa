"""Equal capacity: a variant's channels scaled until it is as large as the network with all skips on.

Taking a skip away takes parameters away too, so an unmatched ablation compares sizes as well as skips.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from segpipe.config.model import Model
from segpipe.errors import ConfigError
from segpipe.nets.build import PAIR, build_meta

TOLERANCE = 0.01
MULTIPLES = (
    8,
    4,
    2,
    1,
)  # channels are rounded to the largest of these that comes within the tolerance
FACTORS = (1 / 8, 8.0)  # between which channels are scaled
HALVINGS = 20


@dataclass(frozen=True)
class Match:
    """What matching reached.

    Attributes:
        model: the variant with the channels that were found; it is not matched again.
        what: `params` or `flops`.
        reference: parameters, or multiply-adds of a patch, of the network with all skips on.
        reached: likewise of `model`.
    """

    model: Model
    what: str
    reference: int
    reached: int

    @property
    def deviation(self) -> float:
        """Of the variant from the reference, as a share of it."""
        return self.reached / self.reference - 1


def match(
    model: Model,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    patch: Sequence[int],
) -> Match:
    """The model with its channels scaled to within 1 % of the reference, as `model.match` asks.

    The reference has the same options with every long skip `concat` and every short skip on: `dense` where there is a
    growth rate, else `residual`.

    Raises:
        ConfigError: if no channels come that near.
    """

    def size(one: Model) -> int:
        network = build_meta(one, in_channels, out_channels, strides, kernels)
        if model.match == "params":
            return sum(weight.numel() for weight in network.parameters())
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(
                torch.empty(PAIR, in_channels, *patch, device="meta")
            )  # as it trains, with all its heads
        return counter.get_total_flops() // 2 // PAIR

    short = "dense" if model.growth_rate else "residual"
    goal = size(
        model.model_copy(
            update={"long_skips": "concat", "short_skips": short, "short_skips_in": "both"}
        )
    )
    tried: dict[tuple[int, ...], int] = {}

    def size_of(widths: list[int]) -> int:
        if tuple(widths) not in tried:
            tried[tuple(widths)] = size(_with(model, widths))
        return tried[tuple(widths)]

    found = Match(model, model.match, goal, size_of(_widths(model)))
    for multiple in MULTIPLES:
        _search(_widths(model), multiple, goal, size_of)
        best = min(tried, key=lambda widths: abs(tried[widths] - goal))
        found = Match(_with(model, list(best)), model.match, goal, tried[best])
        if abs(found.deviation) <= TOLERANCE:
            return found
    raise ConfigError(
        f"model.match={model.match}: no channels come within {TOLERANCE:.0%} of the {goal:,} of the network with all "
        f"skips on; the nearest, {found.model.channels}, are {found.deviation:+.1%} off: give wider model.channels"
    )


def _search(widths: list[int], multiple: int, goal: int, size: Callable[[list[int]], int]) -> None:
    """Tries the widths as a whole, halving the interval of their factor, then level by level from the coarsest."""

    def scaled(factor: float) -> list[int]:
        return [max(multiple, round(width * factor / multiple) * multiple) for width in widths]

    low, high = FACTORS
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if size(scaled(middle)) < goal else (low, middle)
    filled = scaled(low)
    for place in reversed(range(len(filled))):
        wider = [*filled[:place], filled[place] + multiple, *filled[place + 1 :]]
        filled = wider if size(wider) <= goal else filled


def _widths(model: Model) -> list[int]:
    return [*model.channels, *(model.decoder_channels or [])]


def _with(model: Model, widths: list[int]) -> Model:
    levels = len(model.channels)
    return model.model_copy(
        update={
            "channels": widths[:levels],
            "decoder_channels": widths[levels:] or None,
            "match": "none",
        }
    )
