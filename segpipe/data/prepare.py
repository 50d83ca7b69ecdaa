"""Prepare scans for the network: read, resample to model space, normalise.

Training and prediction share these functions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from segpipe.config.train import Normalise
from segpipe.data.cases import Case
from segpipe.errors import DataError
from segpipe.geometry import Grid, Located, ModelSpace, Volume, check_same_grid
from segpipe.io.label_maps import load_label_of
from segpipe.io.volumes import load, read
from segpipe.metrics import IGNORED
from segpipe.orientation import Planes
from segpipe.plan import Plan

# below it is air, noise included: air is at -1000; lungs are around -850, their vessels above -100
AIR_HU = -800
MASK_TYPES = (np.uint8, np.uint16, np.uint32)
DWARFED = 1e6  # times the range of the usual voxels: the network would see one grey
SAMPLED = 2**20  # voxels that stand for a channel
NAMED = 5  # undeclared ids that a message names at most


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network sees it, and as the scanner wrote it.

    Attributes:
        image: shape `(c, x, y, z)` in model space, normalised, float32.
        native: the scan as it was read.
        body: in model space, where a CT is not air, that is where a channel is above `AIR_HU`; None
            unless all channels are CT.
    """

    image: Float[Tensor, "c x y z"]
    native: Located
    body: Bool[Tensor, "x y z"] | None = None

    @property
    def grid(self) -> Grid:
        """Return the scanner's grid."""
        return Grid.of(self.native)


def model_space(plan: Plan) -> ModelSpace:
    """Return the model space of the plan's spacing and planes."""
    x, y, z = plan.spacing_mm
    planes = Planes(plan.slice_axis, plan.slices, plan.frame)
    return ModelSpace((x, y, z), planes, plan.averages)


def prepare_scan(
    images: Sequence[Path], plan: Plan, load: Callable[..., Located] = load
) -> PreparedScan:
    """Read a scan and prepare it for the network.

    Args:
        images: one file per channel, or one file that holds them all.
        plan: of the network.
        load: reads a file as a volume `(c, x, y, z)`; its argument `nan` is the plan's.

    Raises:
        DataError: if a file cannot be read, or the scan has other channels than the plan.
    """
    return prepare_volume(read(images, partial(load, nan=plan.nan)), plan, images[0])


def prepare_volume(volume: Located, plan: Plan, name: object = "the scan") -> PreparedScan:
    """Prepare a volume `(c, x, y, z)` for the network.

    Args:
        volume: as it was read.
        plan: of the network.
        name: of the volume, for messages.

    Raises:
        DataError: if it has other channels than the plan, or intensities too large for float32.
    """
    if volume.shape[0] != len(plan.channels):
        raise DataError(
            f"{name}: has {volume.shape[0]} channels, but the network was planned for "
            f"{len(plan.channels)}"
        )
    image = model_space(plan).to_model(volume)
    _check_intensities(volume, plan, name)
    body = None
    if set(plan.normalise) == {"ct"}:
        body = (image > AIR_HU).any(0)
    prepared = normalise(image, plan)
    if not math.isfinite(float(prepared.sum(dtype=torch.float64))):
        largest = float(np.abs(volume.numpy()).max())
        raise DataError(
            f"{name}: its intensities, up to {largest:.3g}, overflow when they are normalised "
            f"({', '.join(plan.normalise)}): scale them down, or correct the voxels that are wrong"
        )
    return PreparedScan(prepared, volume, body)


def _check_intensities(volume: Located, plan: Plan, name: object) -> None:
    """Check that normalised intensities will be finite, and not all but equal.

    Raises:
        DataError: if a few voxels dwarf all others; `ct` clips them.
    """
    for number, (channel, method) in enumerate(zip(volume.numpy(), plan.normalise, strict=True)):
        outlier = None if method == "ct" else find_outlier(channel)
        if outlier is not None:
            raise DataError(
                f"{name}: channel {number} holds {outlier}; set such voxels to a plausible value"
            )


def find_outlier(channel: np.ndarray) -> str | None:
    """Return a message's part on voxels that dwarf all others of a channel; None if there are none.

    They lie more than `DWARFED` times the range of the usual voxels away from the median, or beyond
    single precision. Usual is the middle 90 % of the voxels that are not background.
    """
    low = float(channel.min())
    high = float(channel.max())
    farthest = high if abs(high) > abs(low) else low
    if abs(farthest) > float(np.finfo(np.float32).max):
        return f"{farthest:g}, beyond single precision"
    sample = channel.ravel()[:: max(1, channel.size // SAMPLED)]
    middle = float(np.median(sample))
    others = sample[sample != middle]
    if not others.size:
        return None
    bottom, top = np.percentile(others, (5, 95)).tolist()
    if top > bottom and max(high - middle, middle - low) > DWARFED * (top - bottom):
        return (
            f"{farthest:g}, where most voxels lie between {bottom:g} and {top:g}: normalised, "
            "these would all look the same"
        )
    return None


def normalise(image: Float[Tensor, "c x y z"], plan: Plan) -> Float[Tensor, "c x y z"]:
    """Return the intensities on a common scale, channel by channel.

    `zscore`: mean 0 and standard deviation 1 over the scan. `zscore_nonzero`: the same over its
    voxels that are not 0, which stay 0, for scans that were cut out of their background. `ct`:
    clipped to the 0.5 and 99.5 percentiles of the training cases' labelled voxels, then their mean
    and standard deviation (Isensee 2021), since Hounsfield units mean the same in every scan.
    `rescale`: from 0 at the scan's minimum to 1 at its maximum. `rgb`: divided by 255.
    """
    channels = []
    for channel, method, foreground in zip(image, plan.normalise, plan.foreground, strict=True):
        channels.append(_normalise_channel(channel, method, foreground))
    return torch.stack(channels)


def _normalise_channel(
    channel: Tensor, method: Normalise, foreground: tuple[float, float, float, float]
) -> Tensor:
    if method == "none":
        return channel
    if method == "zscore":
        return _zscore(channel)
    if method == "rescale":
        low = channel.min()
        return (channel - low) / (channel.max() - low).clamp(min=1e-6)
    if method == "rgb":
        return channel / 255
    if method == "zscore_nonzero":
        inside = channel != 0
        return channel.masked_scatter(inside, _zscore(channel[inside])) if inside.any() else channel
    low, high, mean, deviation = foreground
    return channel.clamp(low, high).sub_(mean).div_(max(deviation, 1e-6))


def _zscore(voxels: Tensor) -> Tensor:
    mean = voxels.mean(dtype=torch.float64).float()
    deviation = voxels.double().std(correction=0).float()
    smallest = 1e-6 * (1 + float(mean.abs()))  # a constant image must not be divided by 0
    return (voxels - mean) / deviation.clamp(min=smallest)


def read_labels(case: Case, plan: Plan, grid: Grid) -> Volume:
    """Read the case's label map, with label indices in place of ids on disk.

    Voxels that nobody has annotated are `IGNORED`.

    Args:
        case: with a label map.
        plan: of the network.
        grid: of the case's image.

    Raises:
        DataError: if it cannot be read, does not lie on the scan's grid, or holds an id that is not
            declared.
    """
    assert case.label is not None
    volume = load_label_of(case.label, grid, case.images[0], plan.labels)
    check_same_grid(case.images[0], grid, case.label, Grid.of(volume))
    ids = volume.numpy()
    if plan.ignore is None:
        indices = to_index(ids, plan.labels, case.label)
    else:
        is_ignored = ids == plan.ignore
        indices = to_index(np.where(is_ignored, 0, ids), plan.labels, case.label)
        indices[is_ignored] = IGNORED
    return Volume(torch.from_numpy(indices), np.asarray(volume.affine, dtype=float))


def to_index(ids: np.ndarray, labels: dict[str, int], path: Path) -> Integer[np.ndarray, "1 x y z"]:
    """Return label indices, positions in the order of `labels`, for ids on disk, as uint8.

    Args:
        ids: shape `(1, x, y, z)`.
        labels: name -> id on disk.
        path: of the label map, for messages.

    Raises:
        DataError: for an id that `labels` does not declare, with the number of its voxels.
    """
    order = np.argsort(list(labels.values()), kind="stable").astype(np.uint8)
    declared = np.array(sorted(labels.values()))
    position = np.minimum(np.searchsorted(declared, ids), len(declared) - 1)
    is_undeclared = declared[position] != ids
    if is_undeclared.any():
        raise DataError(f"{path}: holds {_undeclared(ids[is_undeclared], labels)}")
    return order[position]


def _undeclared(ids: np.ndarray, labels: dict[str, int]) -> str:
    """Return a message's part: the undeclared ids with their voxels, and what is declared."""
    values, counts = np.unique(ids, return_counts=True)
    named = []
    for value, count in zip(values[:NAMED], counts[:NAMED], strict=True):
        named.append(f"{value:g} ({count} voxels)")
    more = " ..." if len(values) > NAMED else ""
    declared = ", ".join(f"{number} {name}" for name, number in labels.items())
    return f"{', '.join(named)}{more}, but the dataset declares only {declared}"


def to_label(
    indices: Integer[np.ndarray, "..."], labels: dict[str, int]
) -> Integer[np.ndarray, "..."]:
    """Return ids on disk for label indices, the inverse of `to_index`, as `mask_dtype` says."""
    ids = list(labels.values())
    dtype = mask_dtype(labels)
    if ids == list(range(len(ids))):
        return indices.astype(dtype, copy=False)
    return np.array(ids, dtype=dtype)[indices]


def mask_dtype(labels: dict[str, int]) -> type[np.integer]:
    """Return the smallest unsigned integer type that holds every id of the labels.

    It does not depend on which labels a mask holds, so that all masks of a dataset share it.
    """
    largest = max(labels.values())
    return next(dtype for dtype in MASK_TYPES if largest <= np.iinfo(dtype).max)
