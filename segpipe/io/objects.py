"""Scans that a program holds, in whatever form: paths, bytes, files, images, tensors."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from segpipe.config.data import NaNPolicy
from segpipe.errors import DataError
from segpipe.geometry import Located, Volume
from segpipe.io.nifti import check_header, image_voxels
from segpipe.io.values import without_nan
from segpipe.io.volumes import load, read, to_volume


@runtime_checkable
class Readable(Protocol):
    """A binary file object, as `open(path, "rb")` gives it."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, all that are left without a size."""
        ...


Content = bytes | bytearray | Readable
ScanLike = Path | str | Sequence[Path | str] | Content | SpatialImage | Located | Tensor


def as_volume(scan: ScanLike, nan: NaNPolicy = "refuse") -> Located:
    """Return one volume of shape `(C, x, y, z)` of any object that a program may hold.

    Args:
        scan: a path, a path per channel, the bytes of a NIfTI file or a binary file object of one,
            a nibabel image, or a `MetaTensor` or `Volume` `(x, y, z)` or `(C, x, y, z)`, whose
            affine leads to mm in RAS+.
        nan: the treatment of NaN and infinite voxels, as `read_voxels` takes it.

    Raises:
        DataError: if it cannot be read, or has no affine.
    """
    if isinstance(scan, str | Path):
        return read([Path(scan)], partial(load, nan=nan))
    if isinstance(scan, bytes | bytearray | Readable):
        with stored(scan) as path:
            return _read_stored(path, nan)
    if isinstance(scan, Sequence):
        return read(list(map(Path, scan)), partial(load, nan=nan))
    if isinstance(scan, SpatialImage):
        scan = to_volume(*image_voxels("the image", scan))
    if not isinstance(scan, Located):
        raise DataError("the tensor has no affine: give monai.data.MetaTensor(tensor, affine)")
    voxels = scan.as_tensor()
    if voxels.ndim != 4:
        voxels = voxels[None]
    affine = np.asarray(scan.affine, dtype=float)
    check_header("the tensor", tuple(voxels.shape[1:]), affine)
    if not voxels.isfinite().all():
        voxels = torch.from_numpy(without_nan("the scan", voxels.cpu().numpy(), nan))
    return Volume(voxels, affine)


def _read_stored(path: Path, nan: NaNPolicy) -> Located:
    """Read a temporary file, whose name says nothing to anybody.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return read([path], partial(load, nan=nan))
    except DataError as error:
        raise DataError(str(error).replace(str(path), "the scan")) from None


@contextmanager
def stored(content: Content) -> Iterator[Path]:
    """Write the content of a NIfTI file to a temporary file, so that it is checked as any file is.

    The file is gone when the block ends.

    Args:
        content: bytes, or a binary file object, which is read from where it stands to its end.
    """
    with tempfile.TemporaryDirectory(prefix="segpipe-") as folder:
        path = Path(folder, "scan.nii")
        with path.open("wb") as file:
            if isinstance(content, bytes | bytearray):
                file.write(content)
            else:
                shutil.copyfileobj(content, file)
        yield path


@contextmanager
def as_file(scan: ScanLike) -> Iterator[Path]:
    """Give a file with the grid of a scan, and with its header where it is a file itself.

    Args:
        scan: a scan as `as_volume` takes it; a file object is read from where it stands.

    Raises:
        DataError: if it has no affine.
    """
    if isinstance(scan, str | Path):
        yield Path(scan)
    elif isinstance(scan, bytes | bytearray | Readable):
        with stored(scan) as path:
            yield path
    elif isinstance(scan, Sequence):
        yield Path(scan[0])
    else:
        volume = as_volume(scan, "fill")
        image = nib.Nifti1Image(np.zeros(volume.shape[1:], np.uint8), volume.affine)
        image.header.set_xyzt_units("mm")
        with stored(image.to_bytes()) as path:
            yield path
