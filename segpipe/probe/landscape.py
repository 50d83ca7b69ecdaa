"""The loss around trained networks, along random directions that are normalised filter by filter (Li 2018).

Weights in front of a norm can be twice as large and the network computes the same: so a direction has, in every filter,
the length of that filter. A filter is what makes one output channel: it lies on the first axis of a convolution and on
the second of a transposed one. Biases, norms and running statistics, and whatever else is no convolution or linear
layer, stay as they are. The networks are in evaluation mode: the loss is that of the finest head.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.config.probe import Landscape
from segpipe.config.train import Augment
from segpipe.config.validation import validate
from segpipe.data.patches import fixed_patches
from segpipe.device import computing_in
from segpipe.errors import ConfigError
from segpipe.files import write_rows
from segpipe.nets.gradient import CONVOLUTIONS
from segpipe.plan import Plan
from segpipe.probe.pictures import draw_landscapes
from segpipe.probe.trained import TrainedRun, find_cases, open_runs, output_folder, same_targets
from segpipe.terminal import progress_bar, show_next, show_table
from segpipe.training.loss import SegmentationLoss
from segpipe.windows import to_network

log = logging.getLogger("segpipe")
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FEWEST = 5
MOST = {1: 201, 2: 51}
SEEN = (
    "channels",
    "spacing_mm",
    "patch",
    "slice_axis",
    "normalise",
    "ignore",
)  # of a plan, on which a patch depends


@dataclass(frozen=True)
class Point:
    """The loss at one place.

    Attributes:
        network: its name.
        first: how far along the first direction, in lengths of each filter.
        second: likewise; 0 where there is one direction.
        loss: Dice loss and cross-entropy.
    """

    network: str
    first: float
    second: float
    loss: float


def landscape(options: Landscape) -> int:
    """Computes and draws the loss around networks: `landscape.csv`, `profile.png`, `contour.png`, `surface.png`.

    Returns:
        The exit status.

    Raises:
        SegpipeError: if a checkpoint or the cases cannot be used, or the networks do not see the same patches.
    """
    runs = open_runs(options)
    _see_alike(runs)
    folder = output_folder(options, "landscape")
    cases = find_cases(options, runs[0].trained)
    config = runs[0].trained.config
    augment, foreground = validate(Augment, config["augment"]), config["plan"]["foreground"]
    image, label = fixed_patches(
        cases, runs[0].plan, foreground, augment, options.patches, options.seed
    )
    losses = [loss_of(run, runs[0], image, label) for run in runs]
    size = resolution(losses, options)
    places = np.linspace(-options.reach, options.reach, size)
    surfaces = []
    with progress_bar() as bar:
        walking = bar.add_task("losses", total=len(runs) * size**options.axes, note="")
        for run, loss in zip(runs, losses, strict=True):
            ways = directions(run.trained.network, options.axes, options.seed)
            surfaces.append(
                surface(run.trained.network, loss, ways, places, lambda: bar.advance(walking))
            )
    names = [run.name for run in runs]
    found = zip(names, surfaces, strict=True)
    write_rows(
        folder / "landscape.csv", [point for each in found for point in _points(*each, places)]
    )
    draw_landscapes(names, places, surfaces, folder)
    for_each = zip(names, surfaces, strict=True)
    near, far = options.reach / 2, options.reach
    rows = [
        [name, *(f"{value:.4g}" for value in _climb(one, places, near, far))]
        for name, one in for_each
    ]
    columns = [
        "network",
        "at its weights",
        f"mean within {near:g}",
        f"mean within {far:g}",
        "highest",
    ]
    show_table(
        f"loss on {options.patches} patches, {size} places along each direction", columns, rows
    )
    drawn = ["profile.png", *(["contour.png", "surface.png"] if options.axes == 2 else [])]
    show_next(
        [
            ("drawn", ", ".join(str(folder / name) for name in drawn)),
            ("table", folder / "landscape.csv"),
        ]
    )
    return 0


def loss_of(
    run: TrainedRun, first: TrainedRun, image: Tensor, label: Tensor
) -> Callable[[], float]:
    """The loss of a network on these patches as its weights are now; terms are weighted as those of the first run."""
    device, axis = run.predictor.device, run.plan.slice_axis
    loss = SegmentationLoss(run.plan, first.loss.weights)
    image, label = (to_network(patches.to(device), axis) for patches in (image, label))

    @torch.inference_mode()
    def now() -> float:
        with computing_in(run.predictor.number_format, device):
            logits = run.trained.network(image)
        return float(loss(logits, label))

    return now


def resolution(losses: Sequence[Callable[[], float]], options: Landscape) -> int:
    """Places along each direction, an odd number, that the time allows."""
    taken = 0.0
    for loss in losses:
        loss()  # the first call is slower
        start = time.perf_counter()
        loss()
        taken += time.perf_counter() - start
    most = (options.max_time.total_seconds() / taken) ** (1 / options.axes)
    size = int(np.clip(math.floor(most), FEWEST, MOST[options.axes]))
    size -= 1 - size % 2  # the trained weights themselves stand in the middle
    log.info("%d places along each direction: %.3f s for a loss of all networks", size, taken)
    return size


def directions(network: nn.Module, count: int, seed: int) -> list[list[Tensor]]:
    """Random directions, a tensor for each weight of `moving`, every filter as long as the network's own."""
    rng = torch.Generator().manual_seed(seed)
    return [[_direction(part, rng) for part in moving(network)] for _ in range(count)]


def moving(network: nn.Module) -> list[nn.Module]:
    """The convolutions and linear layers of a network."""
    return [
        part
        for part in network.modules()
        if isinstance(part, (*CONVOLUTIONS, nn.Conv1d, nn.Linear))
    ]


def _direction(part: nn.Module, rng: torch.Generator) -> Tensor:
    weight = part.get_parameter("weight").detach()
    drawn = torch.randn(weight.shape, generator=rng, dtype=weight.dtype).to(weight.device)
    return drawn * (filter_norms(part, weight) / (filter_norms(part, drawn) + 1e-10))


def filter_norms(part: nn.Module, weight: Tensor) -> Tensor:
    """The norm of each filter, in a shape that multiplies the weight."""
    if not isinstance(part, TRANSPOSED):
        return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
    # (in, out / groups, *kernel): the inputs of a group make its outputs
    grouped = weight.unflatten(0, (part.groups, -1))
    norms = grouped.transpose(1, 2).flatten(2).norm(dim=2)[:, None]
    return (
        norms.expand(grouped.shape[:3])
        .flatten(0, 1)
        .view(*weight.shape[:2], *[1] * (weight.ndim - 2))
    )


@torch.no_grad()
def surface(
    network: nn.Module,
    loss: Callable[[], float],
    ways: Sequence[Sequence[Tensor]],
    places: Sequence[float] | np.ndarray,
    done: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "*places"]:
    """The loss at every place along one direction or over two; the network is left as it was.

    Args:
        network: whose weights move.
        loss: of it, as it is when called.
        ways: directions, as `directions` gives them.
        places: how far along each.
        done: called after each place.
    """
    weights = [part.get_parameter("weight") for part in moving(network)]
    before = [weight.clone() for weight in weights]
    found = []
    try:
        for steps in itertools.product(places, repeat=len(ways)):
            for number, weight in enumerate(weights):
                moved = [float(step) * way[number] for step, way in zip(steps, ways, strict=True)]
                weight.copy_(before[number] + torch.stack(moved).sum(0))
            found.append(loss())
            done()
    finally:
        for weight, own in zip(weights, before, strict=True):
            weight.copy_(own)
    return np.array(found).reshape([len(places)] * len(ways))


def _climb(one: np.ndarray, places: np.ndarray, *within: float) -> list[float]:
    """The loss in the middle, its mean up to each of these distances along every direction, and the highest."""
    far = np.max(np.abs(np.stack(np.meshgrid(*[places] * one.ndim, indexing="ij"))), axis=0)
    return [
        float(one[far == far.min()].item()),
        *(float(one[far <= limit + 1e-9].mean()) for limit in within),
        float(one.max()),
    ]


def _points(name: str, one: np.ndarray, places: np.ndarray) -> list[Point]:
    steps = itertools.product(places.tolist(), repeat=one.ndim)
    return [
        Point(name, at[0], at[1] if len(at) > 1 else 0.0, float(loss))
        for at, loss in zip(steps, one.flat, strict=True)
    ]


def _see_alike(runs: Sequence[TrainedRun]) -> None:
    """Refuses networks whose losses would not be of the same patches.

    Raises:
        ConfigError: naming what differs.
    """
    same_targets(runs)

    def seen(plan: Plan) -> dict[str, object]:
        own = ("foreground",) if "ct" in plan.normalise else ()
        return plan.model_dump(include={*SEEN, *own})

    for run in runs[1:]:
        for key, value in seen(run.plan).items():
            if value != (first := seen(runs[0].plan)[key]):
                raise ConfigError(
                    f"checkpoint: {run.name} sees {key} {value}, but {runs[0].name} {first}: not one scale"
                )
