"""Case -> network-ready volume: read, enter model space, normalise. Shared by training and prediction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from segpipe.data.cases import Case
from segpipe.errors import DataError
from segpipe.geometry import Grid, Located, ModelSpace, Volume, check_same_grid
from segpipe.io.volumes import load, read
from segpipe.metrics import IGNORED
from segpipe.plan import Plan

AIR_HU = -800  # below it is air, noise and all: air is at -1000, lungs lie around -850 but with vessels above -100


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network sees it, and as the scanner wrote it.

    Attributes:
        image: shape `(c, x, y, z)` in model space, normalised, float32.
        native: the scan as it was read.
        body: in model space, where a CT is not air: a channel is above `AIR_HU`; None where not all channels are CT.
    """

    image: Float[Tensor, "c x y z"]
    native: Located
    body: Bool[Tensor, "x y z"] | None = None

    @property
    def grid(self) -> Grid:
        """The scanner's grid."""
        return Grid.of(self.native)


def model_space(plan: Plan) -> ModelSpace:
    """The space of the plan's spacing."""
    x, y, z = plan.spacing_mm
    return ModelSpace((x, y, z))


def prepare_scan(
    images: Sequence[Path], plan: Plan, load: Callable[[Path], Located] = load
) -> PreparedScan:
    """Reads a scan, each file by `load`, and brings it before the network.

    Raises:
        DataError: if a file cannot be read, or the scan has other channels than the plan.
    """
    return prepare_volume(read(images, load), plan, images[0])


def prepare_volume(volume: Located, plan: Plan, name: object = "the scan") -> PreparedScan:
    """Brings a volume `(c, x, y, z)` before the network.

    Raises:
        DataError: if it has other channels than the plan.
    """
    if volume.shape[0] != len(plan.channels):
        raise DataError(
            f"{name}: has {volume.shape[0]} channels, but the network was planned for {len(plan.channels)}"
        )
    image = model_space(plan).to_model(volume)
    body = (image > AIR_HU).any(0) if all(how == "ct" for how in plan.normalise) else None
    return PreparedScan(normalise(image, plan), volume, body)


def normalise(image: Float[Tensor, "c x y z"], plan: Plan) -> Float[Tensor, "c x y z"]:
    """Intensities on a common scale, channel by channel.

    `zscore`: mean 0 and deviation 1 over the scan. `zscore_nonzero`: over its voxels that are not 0, which stay 0, for
    scans that were cut out of their background. `ct`: clipped to the 0.5 and 99.5 percentiles of the training
    cases' labelled voxels, then their mean and deviation (Isensee 2021), since Hounsfield units mean the same in
    every scan.
    """
    channels = zip(image, plan.normalise, plan.foreground, strict=True)
    return torch.stack(
        [_on_scale(channel, how, foreground) for channel, how, foreground in channels]
    )


def _on_scale(channel: Tensor, how: str, foreground: tuple[float, float, float, float]) -> Tensor:
    if how == "none":
        return channel
    if how == "zscore":
        return _zscore(channel)
    if how == "zscore_nonzero":
        inside = channel != 0
        return channel.masked_scatter(inside, _zscore(channel[inside])) if inside.any() else channel
    low, high, mean, deviation = foreground
    return channel.clamp(low, high).sub_(mean).div_(max(deviation, 1e-6))


def _zscore(voxels: Tensor) -> Tensor:
    mean, deviation = (
        voxels.mean(dtype=torch.float64).float(),
        voxels.double().std(correction=0).float(),
    )
    return (voxels - mean) / deviation.clamp(min=1e-6 * (1 + float(mean.abs())))


def read_labels(case: Case, plan: Plan, grid: Grid) -> Volume:
    """The case's label map with ids inside (0, 1, 2 ...) for the dataset's ids on disk, on the scan's grid.

    Voxels that nobody has annotated are `IGNORED`.

    Raises:
        DataError: if it cannot be read, does not lie on the scan's grid, or holds an id that is not declared.
    """
    assert case.label is not None
    volume = read([case.label])
    if volume.shape[0] != 1:
        raise DataError(f"{case.label}: has {volume.shape[0]} channels; a label map has one")
    check_same_grid(case.images[0], grid, case.label, Grid.of(volume))
    ids = volume.numpy()
    inside = to_index(
        ids if plan.ignore is None else np.where(ids == plan.ignore, 0, ids),
        plan.labels,
        case.label,
    )
    if plan.ignore is not None:
        inside[ids == plan.ignore] = IGNORED
    return Volume(torch.from_numpy(inside), np.asarray(volume.affine, dtype=float))


def to_index(ids: np.ndarray, labels: dict[str, int], path: Path) -> Integer[np.ndarray, "1 x y z"]:
    """Ids on disk -> their place in the order of `labels`, uint8.

    Raises:
        DataError: for an id that `labels` does not declare, with the number of its voxels.
    """
    declared = np.array(sorted(labels.values()))
    place = np.array([list(labels.values()).index(label) for label in declared], dtype=np.uint8)
    at = np.minimum(np.searchsorted(declared, ids), len(declared) - 1)
    if (strange := declared[at] != ids).any():
        found, counts = np.unique(ids[strange], return_counts=True)
        first = ", ".join(
            f"{value:g} ({count} voxels)"
            for value, count in zip(found[:5], counts[:5], strict=True)
        )
        known = ", ".join(f"{label} {name}" for name, label in labels.items())
        raise DataError(
            f"{path}: holds {first}{' ...' if len(found) > 5 else ''}, but the dataset declares only {known}"
        )
    return place[at]


def to_label(
    inside: Integer[np.ndarray, "..."], labels: dict[str, int]
) -> Integer[np.ndarray, "..."]:
    """Undoes `inside_ids`, in the type that `mask_dtype` names."""
    ids, kind = list(labels.values()), mask_dtype(labels)
    if ids == list(range(len(ids))):
        return inside.astype(kind, copy=False)
    return np.array(ids, dtype=kind)[inside]


def mask_dtype(labels: dict[str, int]) -> type[np.integer]:
    """The smallest unsigned integer type that holds every id of the label set, so that all its masks share one."""
    largest = max(labels.values())
    return next(kind for kind in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(kind).max)
