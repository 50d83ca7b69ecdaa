"""NIfTI files, and the checks of a header that hold for every format."""

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from segpipe.errors import DataError
from segpipe.io.nifti_header import NiftiFile, in_mm, open_header, pair_of
from segpipe.io.unpack import read_exactly

ENDINGS = (".nii.gz", ".nii", ".hdr.gz", ".hdr")
LARGEST_VOXELS = 2**33  # 32 GiB as float32: a header with more must be damaged
SMALLEST_VOXEL = 1e-18  # mm^3: a nanometre along each axis
RGB = ("R", "G", "B")
VECTORS = (1006, 1007, 2003)  # intents of displacements, vectors and colours


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)` and the affine to mm of a NIfTI file."""
    found = open_header(path)
    header = found.header
    shape = header.get_data_shape()
    dtype = header.get_data_dtype()
    shape_of_scan = _scan_shape(shape, header)
    check_header(path, shape_of_scan, found.affine)
    stored = _read_bytes(path, found).view(dtype).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if slope is not None:
        stored = apply_read_scaling(stored, np.float64(slope), np.float64(intercept))
    return _channels_first(path, stored.reshape(shape_of_scan)), found.affine


def _read_bytes(path: Path, found: NiftiFile) -> np.ndarray:
    """Read the voxels as bytes, as many as the header declares."""
    header = found.header
    size = int(np.prod(header.get_data_shape(), dtype=object)) * header.get_data_dtype().itemsize
    offset = int(header["vox_offset"])
    try:
        if found.is_packed:
            return read_exactly(found.voxels, 0, size, "gzip", skip=offset)
        return read_exactly(found.voxels, offset, size)
    except DataError as error:
        reason = str(error).removeprefix(f"{found.voxels}: ")
        raise DataError(f"{path}: cannot be read as NIfTI ({reason})") from None


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine to mm in RAS+, from the header alone."""
    found = open_header(path)
    shape = _scan_shape(found.header.get_data_shape(), found.header)
    check_header(path, shape, found.affine)
    return shape[:3], found.affine


def files(path: Path) -> list[Path]:
    """Return all files that the voxels come from: one, or a header and its voxels."""
    return sorted(set(pair_of(path)))


def image_voxels(path: Path | str, image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels `(C, x, y, z)` and the affine to mm of a nibabel image.

    The header is checked before memory is allocated.

    Raises:
        DataError: if it is not a scan.
    """
    affine = image.affine
    if affine is not None and hasattr(image.header, "get_xyzt_units"):
        affine = in_mm(affine, image.header)
    shape = _scan_shape(image.shape, image.header)
    check_header(path, shape, affine)
    try:
        voxels = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, HeaderDataError) as error:
        raise DataError(f"{path}: its voxels cannot be read ({error})") from None
    return _channels_first(path, voxels.reshape(shape)), np.asarray(affine, dtype=float)


def _scan_shape(shape: tuple[int, ...], header: Any) -> tuple[int, ...]:
    """Return a shape without trailing axes of one voxel, and with a vector's axis as the fourth."""
    axes = len(shape)
    while axes > 3 and shape[axes - 1] == 1:
        axes -= 1
    is_vector = "intent_code" in header and int(header["intent_code"]) in VECTORS
    if is_vector and axes == 5 and shape[3] == 1:  # the fourth axis is time
        return (*shape[:3], shape[4])
    return tuple(shape[:axes])


def _channels_first(path: Path | str, array: np.ndarray) -> np.ndarray:
    """Return voxels `(x, y, z)` or `(x, y, z, C)` as `(C, x, y, z)`.

    Raises:
        DataError: if they are not real numbers or colours.
    """
    array = array.reshape(array.shape + (1,) * (4 - array.ndim))
    if array.dtype.names == RGB and array.shape[3] == 1:
        array = np.concatenate([array[name] for name in RGB], axis=3)
    if array.dtype.fields or np.iscomplexobj(array):
        raise DataError(
            f"{path}: holds {array.dtype} voxels; segpipe reads real numbers, "
            "with one channel per file or channels in axis 4"
        )
    # torch accepts only the machine's own byte order
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.moveaxis(array, 3, 0)


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
    if affine is None or not invertible or abs(np.linalg.det(affine[:3, :3])) < SMALLEST_VOXEL:
        raise DataError(
            f"{path}: the affine has a zero or undefined axis; "
            "correct the header's spacing and orientation"
        )
