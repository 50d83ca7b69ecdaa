"""DICOM, read by SimpleITK."""

from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_voxels(path: Path, names: str | list[str]) -> np.ndarray:
    """Read the voxels `(C, x, y, z)` of one file, or of one file per slice.

    Raises:
        DataError: if they cannot be read.
    """
    try:
        image = import_sitk().ReadImage(names)
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from None
    voxels = import_sitk().GetArrayFromImage(image)  # (z, y, x), or (z, y, x, C)
    if voxels.ndim == 3:
        voxels = voxels[..., None]
    return voxels.transpose(3, 2, 1, 0)


def import_sitk() -> Any:
    """Import SimpleITK, silencing the warnings of its C++ code; errors are raised."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def open_header(path: Path) -> Any:
    """Return a reader that has read the header of a file.

    Raises:
        DataError: if the header cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    reader = import_sitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        size = path.stat().st_size
        raise DataError(f"{path}: cannot be read ({reason_of(error)}); {size} bytes") from None
    return reader


def reason_of(error: RuntimeError) -> str:
    """Return the last line of an ITK error, without its position in ITK's source."""
    for line in reversed(str(error).splitlines()):
        if line.strip():
            return line.strip().removeprefix("ITK ERROR: ")
    return "no reason given"


def to_nifti(affine: np.ndarray) -> np.ndarray:
    """Convert an LPS+ affine to RAS+, rounded to single precision as NIfTI headers hold it."""
    return (LPS_TO_RAS @ affine).astype(np.float32).astype(float)
