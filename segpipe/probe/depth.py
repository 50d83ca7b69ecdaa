"""The gradient at initialisation against depth, with and without each kind of skip.

The network is fed noise and random labels. It computes in float64: without skips the squared gradient is too small for
float32.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from segpipe.config.model import LongSkip, Model, ShortSkip, per_level
from segpipe.config.probe import Depth
from segpipe.files import write_rows
from segpipe.nets.build import build
from segpipe.nets.gradient import (
    CONVOLUTIONS,
    bottleneck,
    gradients,
    layers_in_order,
    relative_norms,
)
from segpipe.probe.pictures import Profile, draw_depth
from segpipe.terminal import progress_bar, show_next, show_table

log = logging.getLogger("segpipe")
LABELS, IMAGES = 4, 2
ENDS = 5  # layers that are called the first ones, and the last ones


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer of one network.

    Attributes:
        long_skips: of the network.
        short_skips: likewise.
        seed: of its weights, and of image and labels.
        layer: its place in the order in which layers run.
        stage: `encoder 0`, `decoder 0`, `head 0`.
        name: its path in the network.
        relative_gradient: `|grad W| / |W|`.
    """

    long_skips: LongSkip
    short_skips: ShortSkip
    seed: int
    layer: int
    stage: str
    name: str
    relative_gradient: float


def depth(options: Depth) -> int:
    """Measures and draws the gradient of each layer: `depth.csv`, `depth.png` and a table.

    Returns:
        The exit status.

    Raises:
        ConfigError: if a network cannot be built.
        DataError: if nothing can be written.
    """
    kinds = list(itertools.product(options.long_skips, options.short_skips))
    pulls: list[LayerGradient] = []
    profiles: list[Profile] = []
    with progress_bar() as bar:
        running = bar.add_task("initialising", total=len(kinds) * options.seeds, note="")
        for long, short in kinds:
            measured = []
            for seed in range(options.seeds):
                measured.append(measure(options, long, short, seed))
                bar.advance(running)
            pulls += [pull for found, _ in measured for pull in found]
            profiles.append(_profile(measured))
    write_rows(options.output / "depth.csv", pulls)
    model = options.model
    made = f"{model.dims}D, norm {model.norm}, {model.activation}, initialisation {options.init}"
    draw_depth(profiles, made, options.output / "depth.png")
    _show(profiles, made)
    show_next([("drawn", options.output / "depth.png"), ("table", options.output / "depth.csv")])
    return 0


def _profile(measured: Sequence[tuple[list[LayerGradient], float]]) -> Profile:
    """The geometric mean of networks of one kind."""
    (first, *_), middle = measured[0]
    of_layers = [[pull.relative_gradient for pull in found] for found, _ in measured]
    with np.errstate(divide="ignore"):  # a gradient of 0 stays 0
        return Profile(
            first.long_skips, first.short_skips, np.exp(np.log(of_layers).mean(0)), middle
        )


def measure(
    options: Depth, long: LongSkip, short: ShortSkip, seed: int
) -> tuple[list[LayerGradient], float]:
    """Each layer's gradient in one freshly initialised network, and the place of its bottleneck.

    Raises:
        ConfigError: if the network cannot be built.
    """
    model = with_skips(options.model, long, short)
    torch.manual_seed(seed)
    strides, kernels = (
        [[2] * model.dims] * (model.levels - 1),
        [[model.kernel] * model.dims] * model.levels,
    )
    network = build(model, 1, LABELS, strides, kernels).double()
    if options.init == "he":
        _as_he(network)
    shape = [options.size] * model.dims
    layers = layers_in_order(network, (1, *shape))
    image, label = torch.randn(IMAGES, 1, *shape).double(), torch.randint(LABELS, (IMAGES, *shape))
    logits = network(image)
    cross_entropy(logits[0] if isinstance(logits, list) else logits, label).backward()
    norms = relative_norms(gradients(layers), [layer.weight.detach() for layer in layers])
    pulls = [
        LayerGradient(long, short, seed, number, layer.stage, layer.name, norm)
        for number, (layer, norm) in enumerate(zip(layers, norms.tolist(), strict=True))
    ]
    return pulls, bottleneck(layers)


def with_skips(model: Model, long: LongSkip, short: ShortSkip) -> Model:
    """The network with these skips; a dense stage has as many layers as its blocks had convolutions."""
    values = model.model_dump() | {"long_skips": long, "short_skips": short}
    if short == "dense":
        blocks, convs = (per_level(of, model.levels) for of in (model.blocks, model.convs))
        layers = [block * conv for block, conv in zip(blocks, convs, strict=True)]
        growth = max(1, min(model.channels) // max(layers))
        values |= {
            "blocks": 1,
            "convs": layers,
            "decoder_blocks": None,
            "decoder_convs": None,
            "growth_rate": growth,
        }
    return Model.model_validate(values)


def _as_he(network: nn.Module) -> None:
    for part in network.modules():
        if isinstance(part, CONVOLUTIONS):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def ends(profile: np.ndarray) -> tuple[float, float]:
    """The geometric mean over the first and over the last layers."""
    with np.errstate(divide="ignore"):
        first, last = (
            float(np.exp(np.log(side).mean())) for side in (profile[:ENDS], profile[-ENDS:])
        )
    return first, last


def _show(profiles: Sequence[Profile], made: str) -> None:
    rows = []
    for profile in profiles:
        first, last = ends(profile.gradient)
        middle = float(profile.gradient.min())
        numbers = [
            f"{value:.1e}" for value in (first, last, last / first if first else np.inf, middle)
        ]
        rows.append(
            [f"{profile.long_skips} / {profile.short_skips}", str(len(profile.gradient)), *numbers]
        )
    title = f"|grad W| / |W| at initialisation ({made}); first and last {ENDS} layers"
    show_table(title, ["long / short", "layers", "first", "last", "last / first", "least"], rows)
