"""The loss around trained networks along random directions (Li 2018).

The networks are in evaluation mode: the loss is that of the finest head, on patches of validation
cases.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segpipe.config.probe import Landscape
from segpipe.config.train import Augment
from segpipe.config.train import Loss as LossOptions
from segpipe.config.validation import validate
from segpipe.data.patches import fixed_patches
from segpipe.device import computing_in
from segpipe.errors import ConfigError
from segpipe.files import write_rows
from segpipe.plan import Plan
from segpipe.probe.landscape_picture import draw_landscapes
from segpipe.probe.surface import Loss, loss_surface, random_directions
from segpipe.probe.trained import TrainedRun, find_cases, open_runs, output_folder, same_targets
from segpipe.terminal import progress_bar, show_next, show_table
from segpipe.training.loss import SegmentationLoss
from segpipe.windows import to_network

log = logging.getLogger("segpipe")
FEWEST = 5  # steps along each direction
MOST = {1: 201, 2: 51}  # by the number of directions
# what a plan says of its patches
GEOMETRY = {"spacing_mm", "averages", "patch", "slice_axis", "slices", "frame", "axes", "rules"}
PATCH_FIELDS = {"channels", "normalise", "ignore"} | GEOMETRY


@dataclass(frozen=True)
class Point:
    """The loss at one point.

    Attributes:
        network: name of the network.
        first: distance along the first direction, in lengths of each filter.
        second: distance along the second direction; 0 where there is only one.
        loss: the weighted sum of the loss terms.
    """

    network: str
    first: float
    second: float
    loss: float


def landscape(options: Landscape) -> int:
    """Compute and draw the loss around networks.

    Writes `landscape.csv`, `profile.png` and, over a plane, `contour.png` and `surface.png`.

    Returns:
        The exit status.

    Raises:
        SegpipeError: if a checkpoint or the cases cannot be used, or the networks do not see the
            same patches.
    """
    runs = open_runs(options)
    _check_same_patches(runs)
    folder = output_folder(options, "landscape")
    image, label = _patches(options, runs[0])
    losses = [loss_of(run, runs[0].loss, image, label) for run in runs]
    steps = np.linspace(-options.reach, options.reach, resolution(losses, options))
    surfaces = _surfaces(runs, losses, steps, options)
    points = []
    for name, surface in surfaces.items():
        points += _points(name, surface, steps)
    write_rows(folder / "landscape.csv", points)
    draw_landscapes(surfaces, steps, folder)
    _show(surfaces, steps, options)
    pictures = ["profile.png"]
    if options.axes == 2:
        pictures += ["contour.png", "surface.png"]
    drawn = ", ".join(str(folder / picture) for picture in pictures)
    show_next([("drawn", drawn), ("table", folder / "landscape.csv")])
    return 0


def _patches(options: Landscape, run: TrainedRun) -> tuple[Tensor, Tensor]:
    """Return images `(B, C, *patch)` and labels `(B, 1, *patch)` of validation cases."""
    cases = find_cases(options, run.trained)
    config = run.trained.config
    augment = validate(Augment, config["augment"])
    foreground = config["plan"]["foreground"]
    return fixed_patches(cases, run.plan, foreground, augment, options.patches, options.seed)


def _surfaces(
    runs: Sequence[TrainedRun], losses: Sequence[Loss], steps: np.ndarray, options: Landscape
) -> dict[str, np.ndarray]:
    """Return the loss around each network by its name, in the order of the runs.

    Networks of the same name, as one that is given twice, are numbered.
    """
    surfaces: dict[str, np.ndarray] = {}
    with progress_bar() as bar:
        task = bar.add_task("losses", total=len(runs) * len(steps) ** options.axes, note="")
        for run, loss in zip(runs, losses, strict=True):
            network = run.trained.network
            directions = random_directions(network, options.axes, options.seed)
            name = run.name if run.name not in surfaces else f"{run.name} ({len(surfaces) + 1})"
            surfaces[name] = loss_surface(
                network, loss, directions, steps, lambda: bar.advance(task)
            )
    return surfaces


def loss_of(run: TrainedRun, options: LossOptions, image: Tensor, label: Tensor) -> Loss:
    """Return a function that computes a network's loss on these patches with its present weights.

    Args:
        run: the run whose network is probed.
        options: weights of the loss terms, and their own options.
        image: `(B, C, *patch)`, three axes.
        label: label indices `(B, 1, *patch)`.
    """
    device = run.predictor.device
    criterion = SegmentationLoss(run.plan, options.weights, options)
    image = to_network(image.to(device), run.plan.slice_axis)
    label = to_network(label.to(device), run.plan.slice_axis)

    @torch.inference_mode()
    def loss() -> float:
        with computing_in(run.predictor.number_format, device):
            logits = run.trained.network(image)
        return float(criterion(logits, label))

    return loss


def resolution(losses: Sequence[Loss], options: Landscape) -> int:
    """Return how many steps along each direction fit the time: an odd number.

    The trained weights themselves are the step in the middle.
    """
    seconds = 0.0
    for loss in losses:
        loss()  # the first call is slower
        start = time.perf_counter()
        loss()
        seconds += time.perf_counter() - start
    affordable = (options.max_time.total_seconds() / seconds) ** (1 / options.axes)
    size = int(np.clip(math.floor(affordable), FEWEST, MOST[options.axes]))
    if size % 2 == 0:
        size -= 1
    log.info("%d steps along each direction: %.3f s for a loss of all networks", size, seconds)
    return size


def _points(name: str, surface: np.ndarray, steps: np.ndarray) -> list[Point]:
    points = []
    for index, loss in np.ndenumerate(surface):
        first = float(steps[index[0]])
        second = float(steps[index[1]]) if surface.ndim == 2 else 0.0
        points.append(Point(name, first, second, float(loss)))
    return points


def _show(surfaces: Mapping[str, np.ndarray], steps: np.ndarray, options: Landscape) -> None:
    near = options.reach / 2
    far = options.reach
    rows = []
    for name, surface in surfaces.items():
        axes = np.meshgrid(*[np.abs(steps)] * surface.ndim, indexing="ij")
        distance = np.max(axes, axis=0)  # the larger of the two distances
        row = [
            name,
            f"{surface[distance == distance.min()].item():.4g}",
            f"{surface[distance <= near + 1e-9].mean():.4g}",
            f"{surface[distance <= far + 1e-9].mean():.4g}",
            f"{surface.max():.4g}",
        ]
        rows.append(row)
    columns = [
        "network",
        "at its weights",
        f"mean within {near:g}",
        f"mean within {far:g}",
        "highest",
    ]
    title = f"loss on {options.patches} patches, {len(steps)} steps along each direction"
    show_table(title, columns, rows)


def _check_same_patches(runs: Sequence[TrainedRun]) -> None:
    """Check that all networks can be given the same patches.

    Raises:
        ConfigError: naming what differs.
    """
    same_targets(runs)
    first = _patch_fields(runs[0].plan)
    for run in runs[1:]:
        for key, value in _patch_fields(run.plan).items():
            if value != first[key]:
                raise ConfigError(
                    f"checkpoint: {run.name} sees {key} {value}, but {runs[0].name} {first[key]}: "
                    "their losses cannot be compared"
                )


def _patch_fields(plan: Plan) -> dict[str, object]:
    """Return what a plan says of its patches; that of CT is normalised by the foreground."""
    fields = set(PATCH_FIELDS)
    if "ct" in plan.normalise:
        fields.add("foreground")
    return plan.model_dump(include=fields)
