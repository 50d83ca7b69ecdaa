"""The file formats of scans: their endings, and the functions that read them.

A new format is a module of this package, and an entry of `FORMATS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from segpipe.io import dicom, images, metaimage, nifti, nrrd, tiff
from segpipe.io.nifti_header import pair_of

Shape = tuple[int, ...]
Reader = Callable[[Path], tuple[np.ndarray, np.ndarray]]


def _mm(path: Path) -> str:
    return "mm"


def _px(path: Path) -> str:
    return "px"


@dataclass(frozen=True)
class Format:
    """A file format.

    All functions raise `DataError` where a file cannot be used.

    Attributes:
        name: the name of the format, for messages.
        endings: the endings of file names, in lower case, the longest first.
        read: returns the voxels `(C, x, y, z)` and the affine to mm in RAS+.
        read_grid: returns the shape `(x, y, z)` and the affine, from the header where there is one.
        files: returns all files that the voxels come from.
        is_image: whether it is a picture, which need not have millimetres.
        unit_of: returns the unit of a file's affine, `mm` or `px`.
        read_label: reads a label map; None where that is stored as a scan is.
    """

    name: str
    endings: tuple[str, ...]
    read: Reader
    read_grid: Callable[[Path], tuple[Shape, np.ndarray]]
    files: Callable[[Path], list[Path]]
    is_image: bool = False
    unit_of: Callable[[Path], str] = _mm
    read_label: Reader | None = None


NIFTI = Format("NIfTI", nifti.ENDINGS, nifti.read, nifti.read_grid, nifti.files)
NRRD = Format("NRRD", nrrd.ENDINGS, nrrd.read, nrrd.read_grid, nrrd.files)
METAIMAGE = Format(
    "MetaImage", metaimage.ENDINGS, metaimage.read, metaimage.read_grid, metaimage.files
)
DICOM = Format("DICOM", dicom.ENDINGS, dicom.read, dicom.read_grid, dicom.files)
IMAGE = Format(
    "image",
    images.ENDINGS,
    images.read,
    images.read_grid,
    images.files,
    is_image=True,
    unit_of=_px,
    read_label=images.read_label,
)
TIFF = Format(
    "TIFF",
    tiff.ENDINGS,
    tiff.read,
    tiff.read_grid,
    tiff.files,
    is_image=True,
    unit_of=tiff.unit_of,
    read_label=tiff.read_label,
)
FORMATS = (NIFTI, NRRD, METAIMAGE, IMAGE, TIFF, DICOM)
# of the voxels whose header is another file; in a folder the header stands for both
DATA_ENDINGS = {".img": NIFTI, ".img.gz": NIFTI}
ENDINGS = tuple(chain.from_iterable(format_.endings for format_ in FORMATS))


def format_of(path: Path) -> Format | None:
    """Return the format of a file by its ending; a folder is taken for DICOM.

    A file without a known ending is DICOM if it begins as one; else its format is unknown: None.
    """
    if path.is_dir():
        return DICOM
    ending = ending_of(path)
    for format_ in FORMATS:
        if ending in format_.endings:
            return format_
    for data_ending, format_ in DATA_ENDINGS.items():
        if path.name.lower().endswith(data_ending):
            return format_
    if not ending and dicom.is_dicom(path):
        return DICOM  # its files often have no ending, or a number as one
    return None


def is_image(path: Path) -> bool:
    """Return whether a file is an image rather than a scan, by its ending."""
    found = format_of(path)
    return found is not None and found.is_image


def ending_of(path: Path) -> str:
    """Return the known ending of a file's name, in lower case; empty if it has none."""
    name = path.name.lower()
    for ending in ENDINGS:
        if name.endswith(ending):
            return ending
    return ""


def stem(path: Path) -> str:
    """Return the file name without its known ending."""
    name = header_of(path).name
    return name[: len(name) - len(ending_of(Path(name)))]


def header_of(path: Path) -> Path:
    """Return the header of a pair of which a file has the voxels; of any other file itself."""
    is_data = path.name.lower().endswith(tuple(DATA_ENDINGS))
    return pair_of(path)[0] if is_data else path
