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

from segpipe import nnunet_rules
from segpipe.accelerator import is_out_of_memory
from segpipe.data.cases import Case
from segpipe.data.intensities import find_outlier, normalise
from segpipe.device import to_device
from segpipe.errors import DataError
from segpipe.geometry import Grid, Located, ModelSpace, Volume, check_same_grid
from segpipe.io.label_maps import load_label_of
from segpipe.io.volumes import load, read
from segpipe.metrics import IGNORED
from segpipe.orientation import Planes
from segpipe.plan import Plan, Rules

# below it is air, noise included: air is at -1000; lungs are around -850, their vessels above -100
AIR_HU = -800
MASK_TYPES = (np.uint8, np.uint16, np.uint32)
HOST = torch.device("cpu")
NAMED = 5  # undeclared ids that a message names at most


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network sees it, and as the scanner wrote it.

    Attributes:
        image: shape `(c, x, y, z)` in model space, normalised, float32; on the device on which the
            scan was prepared.
        native: the scan as it was read.
        body: in model space, where a CT is not air, that is where a channel is above `AIR_HU`; None
            unless all channels are CT.
        box: the part of the scan, along its own axes, that model space covers; None: all of it.
    """

    image: Float[Tensor, "c x y z"]
    native: Located
    body: Bool[Tensor, "x y z"] | None = None
    box: nnunet_rules.Box | None = None

    @property
    def grid(self) -> Grid:
        """Return the scanner's grid."""
        return Grid.of(self.native)

    def whole(self, labels: Integer[np.ndarray, "i j k"]) -> Integer[np.ndarray, "x y z"]:
        """Return the labels of all the scan from those of `seen_grid`; the rest is background."""
        if self.box is None:
            return labels
        found = np.zeros(self.grid.shape, dtype=labels.dtype)
        found[self.box] = labels
        return found

    @property
    def seen_grid(self) -> Grid:
        """Return the part of the scanner's grid that model space covers."""
        return self.grid if self.box is None else self.grid.part(self.box)


def model_space(plan: Plan) -> ModelSpace:
    """Return the model space of the plan's spacing and planes."""
    x, y, z = plan.spacing_mm
    planes = Planes(plan.slice_axis, plan.slices, plan.frame, plan.axes)
    return ModelSpace((x, y, z), planes, plan.averages, as_nnunet=plan.rules == "nnunet")


def prepare_scan(
    images: Sequence[Path],
    plan: Plan,
    load: Callable[..., Located] = load,
    device: torch.device = HOST,
) -> PreparedScan:
    """Read a scan and prepare it for the network.

    Args:
        images: one file per channel, or one file that holds them all.
        plan: the plan of the network.
        load: reads a file as a volume `(c, x, y, z)`; its argument `nan` is the plan's.
        device: the device that prepares it, as in `prepare_volume`.

    Raises:
        DataError: if a file cannot be read, or the scan has other channels than the plan.
    """
    return prepare_volume(read(images, partial(load, nan=plan.nan)), plan, images[0], device)


def prepare_volume(
    volume: Located, plan: Plan, name: object = "the scan", device: torch.device = HOST
) -> PreparedScan:
    """Prepare a volume `(c, x, y, z)` for the network.

    Args:
        volume: the volume as it was read.
        plan: the plan of the network.
        name: the name of the volume, for messages.
        device: the device that brings it to model space and normalises it, where its memory
            suffices; by nnU-Net's rules, whose splines are SciPy's, the host does so.

    Raises:
        DataError: if it has other channels than the plan, or intensities too large for float32.
    """
    if volume.shape[0] != len(plan.channels):
        raise DataError(
            f"{name}: has {volume.shape[0]} channels, but the network was planned for "
            f"{len(plan.channels)}"
        )
    _check_intensities(volume, plan, name)
    prepared = _prepared_on(device, volume, plan)
    if not math.isfinite(float(prepared.image.sum(dtype=torch.float64))):
        largest = float(np.abs(volume.numpy()).max())
        raise DataError(
            f"{name}: its intensities, up to {largest:.3g}, overflow when they are normalised "
            f"({', '.join(plan.normalise)}): scale them down, or correct the voxels that are wrong"
        )
    return prepared


def _prepared_on(device: torch.device, volume: Located, plan: Plan) -> PreparedScan:
    """Prepare a volume on a device, or on the host where the device has too little memory left."""
    try:
        return PREPARE[plan.rules](volume, plan, device)
    except RuntimeError as error:
        if device == HOST or not is_out_of_memory(error):
            raise
    return PREPARE[plan.rules](volume, plan, HOST)


def _resample_then_normalise(volume: Located, plan: Plan, device: torch.device) -> PreparedScan:
    there = Volume(to_device(volume.as_tensor(), device), Grid.of(volume).affine)
    image = model_space(plan).to_model(there)
    body = None
    if set(plan.normalise) == {"ct"}:
        body = (image > AIR_HU).any(0)
    return PreparedScan(normalise(image, plan), volume, body)


def _crop_normalise_resample(volume: Located, plan: Plan, _device: torch.device) -> PreparedScan:
    """Prepare a volume by nnU-Net's rules, on the host."""
    box = nnunet_rules.nonzero_box(volume.numpy())
    part = crop(volume, box)
    inside = None
    if "zscore_nonzero" in plan.normalise:
        inside = torch.from_numpy(nnunet_rules.filled_mask(part.numpy()))
    image = normalise(part.voxels.float(), plan, inside)
    prepared = model_space(plan).to_model(Volume(image, part.affine))
    return PreparedScan(prepared, volume, box=box)


PREPARE: dict[Rules, Callable[[Located, Plan, torch.device], PreparedScan]] = {
    "segpipe": _resample_then_normalise,
    "nnunet": _crop_normalise_resample,
}


def crop(volume: Located, box: nnunet_rules.Box) -> Volume:
    """Return the part of a volume `(c, x, y, z)` in a box, where it is."""
    grid = Grid.of(volume).part(box)
    return Volume(volume.as_tensor()[(slice(None), *box)], grid.affine)


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


def read_labels(case: Case, plan: Plan, grid: Grid) -> Volume:
    """Read the case's label map, with label indices in place of ids on disk.

    Voxels that nobody has annotated are `IGNORED`.

    Args:
        case: a case with a label map.
        plan: the plan of the network.
        grid: the grid of the case's image.

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
        path: the path of the label map, for messages.

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
