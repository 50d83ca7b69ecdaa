"""The gradient at initialisation against depth, with and without each kind of skip.

The networks get noise and random labels. They compute in float64: without skips the squared
gradient is too small for float32.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
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
from segpipe.probe.depth_picture import Profile, draw_depth
from segpipe.terminal import progress_bar, show_next, show_table

log = logging.getLogger("segpipe")
LABELS = 4
IMAGES = 2
ENDS = 5  # layers at either end whose mean is shown


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer of one network.

    Attributes:
        long_skips: the long skips of the network.
        short_skips: the short skips of the network.
        seed: the seed of the weights, and of image and labels.
        layer: index in the order in which layers run.
        stage: `encoder 0`, `decoder 0`, `head 0`.
        name: path in the network.
        relative_gradient: `|grad W| / |W|`.
    """

    long_skips: LongSkip
    short_skips: ShortSkip
    seed: int
    layer: int
    stage: str
    name: str
    relative_gradient: float


@dataclass(frozen=True)
class Measurement:
    """The gradients of one freshly initialised network.

    Attributes:
        layers: input side first.
        bottleneck: index of the middle of the coarsest layers.
    """

    layers: list[LayerGradient]
    bottleneck: float

    @property
    def gradients(self) -> np.ndarray:
        """The relative gradient of each layer."""
        return np.array([layer.relative_gradient for layer in self.layers])


def depth(options: Depth) -> int:
    """Measure the gradient of each layer; write `depth.csv` and `depth.png`, print a table.

    Returns:
        The exit status.

    Raises:
        ConfigError: if a network cannot be built.
        DataError: if nothing can be written.
    """
    kinds = list(itertools.product(options.long_skips, options.short_skips))
    rows: list[LayerGradient] = []
    profiles: list[Profile] = []
    with progress_bar() as bar:
        task = bar.add_task("initialising", total=len(kinds) * options.seeds, note="")
        for long, short in kinds:
            measured = []
            for seed in range(options.seeds):
                measured.append(measure(options, long, short, seed))
                rows += measured[-1].layers
                bar.advance(task)
            profiles.append(_profile(long, short, measured))
    model = options.model
    networks = (
        f"{model.dims}D, norm {model.norm}, {model.activation}, initialisation {options.init}"
    )
    table = options.output / "depth.csv"
    picture = options.output / "depth.png"
    write_rows(table, rows)
    draw_depth(profiles, networks, picture)
    _show(profiles, networks)
    show_next([("drawn", picture), ("table", table)])
    return 0


def _profile(long: str, short: str, measured: Sequence[Measurement]) -> Profile:
    """Return the geometric mean over networks that differ in their seed."""
    gradients = np.stack([measurement.gradients for measurement in measured])
    return Profile(long, short, _geometric_mean(gradients), measured[0].bottleneck)


def _geometric_mean(values: np.ndarray) -> np.ndarray:
    """Return the geometric mean over the first axis; 0 where a value is 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(np.log(values).mean(0)))


def measure(options: Depth, long: LongSkip, short: ShortSkip, seed: int) -> Measurement:
    """Measure the gradient of each layer in one freshly initialised network.

    Raises:
        ConfigError: if the network cannot be built.
    """
    model = with_skips(options.model, long, short)
    strides = [[2] * model.dims] * (model.levels - 1)
    kernels = [[model.kernel] * model.dims] * model.levels
    shape = [options.size] * model.dims
    torch.manual_seed(seed)
    network = build(model, 1, LABELS, strides, kernels).double()
    if options.init == "he":
        _init_he(network)
    layers = layers_in_order(network, (1, *shape))
    image = torch.randn(IMAGES, 1, *shape).double()
    label = torch.randint(LABELS, (IMAGES, *shape))
    _backward(network, image, label)
    weights = [layer.weight.detach() for layer in layers]
    norms = relative_norms(gradients(layers), weights).tolist()
    measured = []
    for index, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
        measured.append(LayerGradient(long, short, seed, index, layer.stage, layer.name, norm))
    return Measurement(measured, bottleneck(layers))


def _backward(network: nn.Module, image: Tensor, label: Tensor) -> None:
    """Compute the gradient of the cross-entropy of the finest logits."""
    logits = network(image)
    finest = logits[0] if isinstance(logits, list) else logits
    cross_entropy(finest, label).backward()


def with_skips(model: Model, long: LongSkip, short: ShortSkip) -> Model:
    """Return the options of the network with these skips.

    A dense stage gets as many layers as its blocks had convolutions, and a growth rate with which
    they add about the stage's channels.
    """
    values = model.model_dump() | {"long_skips": long, "short_skips": short}
    if short == "dense":
        blocks = per_level(model.blocks, model.levels)
        convs = per_level(model.convs, model.levels)
        layers = np.multiply(blocks, convs).tolist()
        values |= {
            "blocks": 1,
            "convs": layers,
            "decoder_blocks": None,
            "decoder_convs": None,
            "growth_rate": max(1, min(model.widths) // max(layers)),
        }
    return Model.model_validate(values)


def _init_he(network: nn.Module) -> None:
    """Initialise all convolutions as He 2015 does, biases with 0."""
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def ends(gradient: np.ndarray) -> tuple[float, float]:
    """Return the geometric mean over the first and over the last layers."""
    first = float(_geometric_mean(gradient[:ENDS]))
    last = float(_geometric_mean(gradient[-ENDS:]))
    return first, last


def _show(profiles: Sequence[Profile], networks: str) -> None:
    rows = []
    for profile in profiles:
        first, last = ends(profile.gradient)
        row = [
            f"{profile.long_skips} / {profile.short_skips}",
            str(len(profile.gradient)),
            f"{first:.1e}",
            f"{last:.1e}",
            f"{last / first if first else np.inf:.1e}",
            f"{profile.gradient.min():.1e}",
        ]
        rows.append(row)
    title = f"|grad W| / |W| at initialisation ({networks}); first and last {ENDS} layers"
    show_table(title, ["long / short", "layers", "first", "last", "last / first", "least"], rows)
