"""NIfTI files, and the checks of a header that hold for every format."""

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from segpipe.errors import DataError
from segpipe.text import first_line

ENDINGS = (".nii.gz", ".nii")
LARGEST_VOXELS = 2**33  # 32 GiB as float32: a header with more must be damaged
NIFTI_ERRORS = (ImageFileError, OSError, EOFError, zlib.error, ValueError)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)` and the affine of a NIfTI file."""
    image = open_nifti(path)
    try:
        return image_voxels(path, image)
    except DataError:
        raise
    except NIFTI_ERRORS as error:
        raise _unreadable(path, error) from None


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine to mm in RAS+, from the header alone."""
    image = open_nifti(path)
    return image.shape, image.affine


def files(path: Path) -> list[Path]:
    """Return all files that the voxels come from."""
    return [path]


def open_nifti(path: Path) -> Any:
    """Read the header of a NIfTI file; the voxels stay on disk."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return nib.load(path)
    except NIFTI_ERRORS as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> DataError:
    size = path.stat().st_size
    return DataError(f"{path}: cannot be read as NIfTI ({first_line(error)}); {size} bytes")


def image_voxels(path: Path | str, image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels `(C, x, y, z)` and the affine of a nibabel image.

    The header is checked before memory is allocated.
    """
    check_header(path, image.shape, image.affine)
    array = np.asanyarray(image.dataobj)
    if array.dtype.fields or np.iscomplexobj(array):
        raise DataError(
            f"{path}: holds {array.dtype} voxels; segpipe reads real numbers, "
            "with one channel per file or channels in axis 4"
        )
    # torch accepts only the machine's own byte order
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array = array.reshape(array.shape + (1,) * (4 - array.ndim))
    return np.moveaxis(array, 3, 0), np.asarray(image.affine, dtype=float)


def check_header(path: Path | str, shape: tuple[int, ...], affine: np.ndarray | None) -> None:
    """Check the shape and the affine that a header declares.

    Raises:
        DataError: if no scan can have them.
    """
    axes = len(shape)
    while axes > 3 and shape[axes - 1] == 1:
        axes -= 1
    shape = tuple(shape[:axes])
    if axes > 4 or min(shape, default=0) < 1:
        raise DataError(
            f"{path}: has the shape {shape}; a scan has 3 axes, or 4 with channels last"
        )
    if np.prod(shape, dtype=float) > LARGEST_VOXELS:
        raise DataError(
            f"{path}: the header declares {shape} voxels, more than {LARGEST_VOXELS}; "
            "it must be damaged"
        )
    invertible = affine is not None and np.isfinite(affine).all()
    if affine is None or not invertible or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(
            f"{path}: the affine has a zero or undefined axis; "
            "correct the header's spacing and orientation"
        )
