"""Probabilities and entropy of a prediction on the scan's own grid.

Both are kept as `uint8`, in steps of 1/255. That is finer than such probabilities are worth, since
calibration is known to a few per cent; it is a quarter of float32, and it packs better than
`uint16`, whose low byte is noise.
"""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from segpipe.calibration import tempered
from segpipe.geometry import Grid
from segpipe.orientation import Orientation
from segpipe.resampling import BLOCK_VOXELS

SAMPLED = 200_000  # voxels of a scan of which a sample is kept
STEPS = 255  # of a probability between 0 and 1
SMALLEST = 1e-12  # a probability below it adds nothing to the entropy


class Maps:
    """Probabilities and entropy of one scan, filled as rows of it become known.

    They lie in unnamed files that are mapped into memory. They take labels * voxels + voxels bytes
    of the disk (60 labels on 512x512x400: 6.3 GB), and only as much memory as the system can spare.

    Args:
        grid: the grid of the scan.
        axis: the axis of model space along which rows become known.
        classes: number of labels, the background included, or of overlapping regions.
        exclusive: whether a voxel has one label.
        save: names of what is kept, of `probabilities` and `entropy`.
        folder: the folder of the files; None: where the system has its temporary files.
        orientation: the orientation of model space on the scan's grid; None: RAS+.
        temperature: the temperature of what is saved.
        box: the part of the scan that alone becomes known; the rest is certain background. None:
            all.

    Attributes:
        probabilities: shape `(x, y, z, classes)` in the scan's order, uint8; None if not kept.
        entropy: shape `(x, y, z)`, uint8; None if not kept. For labels that exclude one another,
            Shannon's entropy as a share of its maximum, which it has where all labels are equally
            probable; for regions, the mean of their entropies in bits.
        sample: probabilities of evenly spread voxels, as the network has them; None if not kept.

    Raises:
        OSError: if there is no room for the files.
    """

    def __init__(
        self,
        grid: Grid,
        axis: int,
        classes: int,
        exclusive: bool,
        save: Iterable[str],
        folder: Path | None = None,
        orientation: Orientation | None = None,
        temperature: float = 1.0,
        box: tuple[slice, slice, slice] | None = None,
    ) -> None:
        self.temperature = temperature
        orientation = orientation or grid.ras
        self.axis = axis
        self.classes = classes
        self.exclusive = exclusive
        self.max_entropy = math.log(classes) if exclusive else classes * math.log(2)
        self.probabilities: np.ndarray | None = None
        self.entropy: np.ndarray | None = None
        self._model_probabilities: np.ndarray | None = None
        self._model_entropy: np.ndarray | None = None
        names = set(save)
        if "probabilities" in names:
            self.probabilities = _mapped_zeros((*grid.shape, classes), folder)
            if box is not None and exclusive:
                self.probabilities[..., 0] = STEPS
            inside = self.probabilities[box or ...]
            self._model_probabilities = orientation.view(np.moveaxis(inside, 3, 0))
        self.sample: Sample | None = None
        if "sample" in names:
            stride = max(1, math.prod(grid.shape) // SAMPLED)
            self.sample = Sample(orientation, stride, box)
        if "entropy" in names:
            self.entropy = _mapped_zeros(grid.shape, folder)
            self._model_entropy = orientation.view(self.entropy[box or ...][None])[0]

    def observe(
        self, rows: slice, classes: Iterable[Float[Tensor, "x y z"]]
    ) -> Iterator[Float[Tensor, "x y z"]]:
        """Keep what is to be saved of these rows, and yield the classes again."""
        index = (slice(None),) * self.axis + (rows,)
        if self.sample is not None:
            classes = self.sample.taking(index, classes)
        if not self.needs_all_classes:
            yield from self._keep(index, classes)
            return
        block = list(classes)
        for _ in self._keep(index, tempered(block, self.temperature, self.exclusive)):
            pass
        yield from block

    @property
    def needs_all_classes(self) -> bool:
        """Return whether all classes of some rows must be in memory at once, for a temperature."""
        is_kept = self.probabilities is not None or self.entropy is not None
        return is_kept and self.temperature != 1

    @property
    def block_voxels(self) -> int | None:
        """Return how many voxels may come at once where all their classes are needed."""
        return BLOCK_VOXELS // self.classes if self.needs_all_classes else None

    def _keep(
        self, index: tuple[slice, ...], classes: Iterable[Tensor]
    ) -> Iterator[Float[Tensor, "x y z"]]:
        """Keep what is to be saved of these rows, and yield the classes again."""
        total: Tensor | None = None
        for number, probability in enumerate(classes):
            if self._model_probabilities is not None:
                self._model_probabilities[number][index] = _quantised(probability)
            if self._model_entropy is not None:
                entropy = self._entropy_of(probability)
                total = entropy if total is None else total.add_(entropy)
            yield probability
        if self._model_entropy is not None and total is not None:
            self._model_entropy[index] = _quantised(total / self.max_entropy)

    def _entropy_of(self, probability: Tensor) -> Tensor:
        """Return what a class adds to the entropy, in nats."""
        entropy = _surprise(probability)
        return entropy if self.exclusive else entropy + _surprise(1 - probability)


class Sample:
    """The probabilities of evenly spread voxels of a scan, as its rows become known.

    Args:
        orientation: the orientation of model space on the scan's grid.
        stride: voxels of a block of rows from one to the next.
        box: the part of the scan in which the rows lie; None: all of it.
    """

    def __init__(
        self,
        orientation: Orientation,
        stride: int,
        box: tuple[slice, slice, slice] | None = None,
    ) -> None:
        self.orientation = orientation
        self.stride = stride
        self.box = box
        self.indices: list[tuple[slice, ...]] = []
        self.blocks: list[Float[Tensor, "classes voxels"]] = []

    def taking(self, index: tuple[slice, ...], classes: Iterable[Tensor]) -> Iterator[Tensor]:
        """Take some voxels of the rows `index`, and yield the classes again."""
        taken: list[Tensor] = []
        for probability in classes:
            taken.append(probability.flatten()[:: self.stride].float().cpu())
            yield probability
        self.indices.append(index)
        self.blocks.append(torch.stack(taken))

    @property
    def probabilities(self) -> Float[np.ndarray, "voxels classes"]:
        """Return the probabilities of the voxels that were taken."""
        return torch.cat(self.blocks, 1).numpy().T

    def values_of(self, array: np.ndarray) -> np.ndarray:
        """Return the values `(voxels,)` of an array `(x, y, z)` of the scan at these voxels."""
        view = self.orientation.view(array[self.box or ...][None])[0]
        return np.concatenate([view[index].ravel()[:: self.stride] for index in self.indices])


def _surprise(probability: Tensor) -> Tensor:
    """Return -p log p."""
    return -probability * probability.clamp(min=SMALLEST).log()


def _quantised(values: Float[Tensor, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    """Return values between 0 and 1 in steps of 1/255."""
    return (values.clamp(0, 1) * STEPS).round_().to(torch.uint8).cpu().numpy()


def _mapped_zeros(shape: tuple[int, ...], folder: Path | None) -> UInt8[np.ndarray, "..."]:
    """Return zeros in an unnamed file, of which nothing is left however the process ends."""
    with tempfile.TemporaryFile(dir=folder) as file:
        # without it a full disk would show only when the memory is written, as a bus error
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        return np.memmap(file, np.uint8, "w+", shape=shape, order="F")
