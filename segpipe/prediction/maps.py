"""What a network says beside the mask: how probable each label is, and how sure it is, on the scan's own grid.

Both are kept as `uint8`, in steps of 1/255. That is finer than such probabilities are worth, since calibration is known
to a few per cent; it is a quarter of float32, and it packs better than `uint16`, whose low byte is noise.
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

from segpipe.geometry import Grid

STEPS = 255  # of a probability between 0 and 1
LEAST = 1e-12  # a probability below it adds nothing to the entropy


class Maps:
    """Probabilities and entropy of one scan, filled as rows of it become known.

    They lie in files without a name, mapped into memory: labels * voxels + voxels bytes of the disk (60 labels on
    512x512x400: 6.3 GB), and of memory only what the system has to spare.

    Args:
        grid: the scan's.
        axis: of RAS+ along which rows become known.
        classes: labels, the background included, or overlapping regions.
        exclusive: whether a voxel has just one label.
        wanted: of `probabilities` and `entropy`.
        folder: where the files lie; None: where the system has its temporary files.

    Attributes:
        probabilities: shape `(x, y, z, classes)` in the scan's order.
        entropy: shape `(x, y, z)`. Of labels that exclude one another Shannon's, as a share of its largest value,
            which it has where all labels are equally probable; of regions the mean of theirs, in bits.

    Raises:
        OSError: if there is no room for the files.
    """

    def __init__(
        self,
        grid: Grid,
        axis: int,
        classes: int,
        exclusive: bool,
        wanted: Iterable[str],
        folder: Path | None = None,
    ) -> None:
        self.axis, self.exclusive, self.largest = (
            axis,
            exclusive,
            math.log(classes) if exclusive else math.log(2),
        )
        chosen = set(wanted)
        self.probabilities = (
            _room((*grid.shape, classes), folder) if "probabilities" in chosen else None
        )
        self.entropy = _room(grid.shape, folder) if "entropy" in chosen else None
        self._chances = (
            None
            if self.probabilities is None
            else grid.ras_view(np.moveaxis(self.probabilities, 3, 0))
        )
        self._doubt = None if self.entropy is None else grid.ras_view(self.entropy[None])[0]

    def watch(
        self, rows: slice, classes: Iterable[Float[Tensor, "x y z"]]
    ) -> Iterator[Float[Tensor, "x y z"]]:
        """Keeps what is asked for of these rows, and hands the classes on."""
        doubt, count = None, 0
        for number, rng in enumerate(classes):
            if self._chances is not None:
                self._rows(self._chances[number], rows)[:] = _stepped(rng)
            if self._doubt is not None:
                more = _surprise(rng) if self.exclusive else _surprise(rng) + _surprise(1 - rng)
                doubt = more if doubt is None else doubt.add_(more)
            count += 1
            yield rng
        if self._doubt is not None and doubt is not None:
            self._rows(self._doubt, rows)[:] = _stepped(
                doubt / (self.largest * (1 if self.exclusive else count))
            )

    def _rows(self, volume: np.ndarray, rows: slice) -> np.ndarray:
        return volume[(slice(None),) * self.axis + (rows,)]


def _surprise(rng: Tensor) -> Tensor:
    return -rng * rng.clamp(min=LEAST).log()


def _stepped(values: Float[Tensor, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    return (values.clamp(0, 1) * STEPS).round_().to(torch.uint8).cpu().numpy()


def _room(shape: tuple[int, ...], folder: Path | None) -> UInt8[np.ndarray, "..."]:
    """Zeros in a file that has no name, so that nothing is left of it however the process ends."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(
            os, "posix_fallocate"
        ):  # else a full disk shows only when the memory is written, as a bus error
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        return np.memmap(file, np.uint8, "w+", shape=shape, order="F")
