"""The headers of NIfTI files, checked and completed before anything relies on them."""

import gzip
import io
import logging
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from segpipe.errors import DataError
from segpipe.io.notes import warn
from segpipe.io.unpack import regular_size
from segpipe.text import first_line

PAIR_ENDINGS = {".hdr": ".img", ".hdr.gz": ".img.gz"}
LARGEST_HEADER = 2**26  # bytes before the voxels; extensions may hold a DICOM header
GZIP = b"\x1f\x8b"
# a header begins with its own size, in either order of bytes
FIRST_BEGINS = (struct.pack("<i", 348), struct.pack(">i", 348))
SECOND_BEGINS = (struct.pack("<i", 540), struct.pack(">i", 540))
UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # codes of metre, mm and micron
APART = 0.1  # of a voxel: sform and qform that differ by more disagree
HEADER_ERRORS = (
    HeaderDataError,
    HeaderTypeError,
    OSError,
    EOFError,
    zlib.error,
    struct.error,
    ValueError,
    OverflowError,
    KeyError,
)
warnings.filterwarnings("ignore", module=r"nibabel\.")


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI file of which the header was read.

    Attributes:
        header: nibabel's, in which sform, qform and pixdim were made usable.
        image_class: nibabel's class for it.
        voxels: path of the file with the voxels.
        is_packed: whether that file is packed by gzip, whatever its name.
    """

    header: Any
    image_class: Any
    voxels: Path
    is_packed: bool

    @property
    def own_affine(self) -> np.ndarray:
        """Return the affine in the unit of the header."""
        return self.header.get_best_affine()

    @property
    def affine(self) -> np.ndarray:
        """Return the affine to mm in RAS+."""
        return in_mm(self.own_affine, self.header)


def in_mm(affine: np.ndarray, header: Any) -> np.ndarray:
    """Return an affine in the unit of a header as one to mm; an unknown unit is mm."""
    factor = UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return np.diag([factor, factor, factor, 1.0]) @ np.asarray(affine, float)


def open_header(path: Path) -> NiftiFile:
    """Read the header of a NIfTI file, or of a pair of `.hdr` and `.img`.

    Raises:
        DataError: if it is not one that voxels can be located by.
    """
    header_file, voxels = pair_of(path)
    regular_size(voxels)
    size = regular_size(header_file)
    try:
        header, image_class = _parse(header_file, header_file == voxels)
        _check_fields(path, header, header_file == voxels)
        _mend_position(path, header)
        is_packed = voxels.open("rb").read(2) == GZIP
    except HEADER_ERRORS as error:
        reason = first_line(error)
        raise DataError(f"{path}: cannot be read as NIfTI ({reason}); {size} bytes") from None
    return NiftiFile(header, image_class, voxels, is_packed)


def pair_of(path: Path) -> tuple[Path, Path]:
    """Return the file with the header and the file with the voxels: one file, or a pair."""
    for header, voxels in PAIR_ENDINGS.items():
        for ending in (header, voxels):
            if path.name.lower().endswith(ending):
                stem = path.name[: len(path.name) - len(ending)]
                if path.name.endswith(ending.upper()):
                    header = header.upper()
                    voxels = voxels.upper()
                return path.with_name(stem + header), path.with_name(stem + voxels)
    return path, path


def _first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, unpacked where its content is packed by gzip."""
    with path.open("rb") as file:
        if file.read(2) != GZIP:
            file.seek(0)
            return file.read(count)
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as unpacked:
            return unpacked.read(count)


def _parse(path: Path, is_single: bool) -> tuple[Any, Any]:
    """Return the header as it is stored, with its extensions, and the class of the image."""
    start = _first_bytes(path, 540)
    is_second = start[:4] in SECOND_BEGINS
    if not is_second and start[:4] not in FIRST_BEGINS:
        raise ValueError(f"it does not begin as a header does; {len(start)} bytes unpacked")
    if not is_second and start[344:348] not in (b"n+1\0", b"ni1\0"):
        raise ValueError("an Analyze 7.5 header, which has no orientation; convert it to NIfTI")
    if is_second:
        image_class = nib.Nifti2Image if is_single else nib.Nifti2Pair
    else:
        image_class = nib.Nifti1Image if is_single else nib.Nifti1Pair
    header_class: Any = image_class.header_class
    header = header_class(start[: header_class.sizeof_hdr], check=False)
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset < 0 or (is_single and offset < header.sizeof_hdr):
        raise ValueError(f"its voxels begin at byte {offset:g} (vox_offset)")
    end = int(min(offset, LARGEST_HEADER)) if is_single else LARGEST_HEADER
    return _with_extensions(path, header, end), image_class


def _with_extensions(path: Path, header: Any, end: int) -> Any:
    """Return a header with its extensions; without those that cannot be read."""
    content = _first_bytes(path, end)
    try:
        return type(header).from_fileobj(io.BytesIO(content), check=False)
    except HEADER_ERRORS:
        warn(path, "the extensions of its header cannot be read and are left out")
        return header


def _check_fields(path: Path, header: Any, is_single: bool) -> None:
    """Check the fields as nibabel does; what it mends itself is said in one warning.

    Raises:
        HeaderDataError: for what cannot be mended.
    """
    if not is_single:
        header["magic"] = header.pair_magic
    shape = header.get_data_shape()
    if min(shape, default=0) < 1:
        raise ValueError(f"it declares the shape {tuple(map(int, shape))}")
    slope = float(header["scl_slope"])
    if np.isinf(slope):
        raise ValueError(f"its slope (scl_slope) is {slope:g}")
    header.get_slope_inter()
    messages: list[str] = []
    logger = logging.Logger("header", logging.WARNING)

    def keep(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    logger.addFilter(keep)
    pixdim = header["pixdim"].copy()
    header.check_fix(logger, error_level=40)
    header["pixdim"] = np.where(pixdim < 0, header["pixdim"], pixdim)  # zeros are not 1 mm
    told = [one for one in messages if "pixdim" not in one and "divisible by 16" not in one]
    if told:
        warn(path, f"its header was mended ({'; '.join(told)})")


def _mend_position(path: Path, header: Any) -> None:
    """Make sform, qform and pixdim usable, and warn of what could not be.

    Raises:
        ValueError: if neither says where the voxels lie.
    """
    spacing = header["pixdim"][1:4]
    sizes = np.ones(3, int)
    shape = header.get_data_shape()[:3]
    sizes[: len(shape)] = shape
    unknown = ~np.isfinite(spacing) | (spacing == 0)
    spacing[unknown & (sizes == 1)] = 1  # of a single slice; nobody can say
    unknown &= sizes > 1
    sform = _coded(header, "sform")
    qform = None if unknown.any() else _coded(header, "qform")
    if sform is not None:
        if unknown.any():
            header["pixdim"][1:4] = np.linalg.norm(sform[:3, :3], axis=0)
            warn(path, "its pixdim is zero or undefined; the spacing is taken from the sform")
        if int(header["qform_code"]) > 0 and qform is None:
            _leave_out(path, header, "qform", "sform")
    elif int(header["sform_code"]) > 0 and qform is not None:
        _leave_out(path, header, "sform", "qform")
    elif unknown.any() or (qform is None and _has_code(header)):
        raise ValueError(
            "its affine has a zero or undefined axis; correct the header's spacing and orientation"
        )
    if sform is not None and qform is not None:
        _compare(path, header, sform, qform, sizes)


def _has_code(header: Any) -> bool:
    return int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def _coded(header: Any, name: str) -> np.ndarray | None:
    """Return the sform or the qform; None where it has no code, or is no affine."""
    if int(header[f"{name}_code"]) <= 0:
        return None
    try:
        affine = np.asarray(getattr(header, f"get_{name}")(), float)
    except (HeaderDataError, ValueError):
        return None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) == 0:
        return None
    return affine


def _leave_out(path: Path, header: Any, name: str, used: str) -> None:
    header[f"{name}_code"] = 0
    warn(path, f"its {name} is not an affine and is left out; the {used} is used")


def _compare(
    path: Path, header: Any, sform: np.ndarray, qform: np.ndarray, sizes: np.ndarray
) -> None:
    """Warn where sform and qform put a corner of the field of view at different places."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (sizes - 1)
    positions = np.c_[corners, np.ones(8)].T
    apart = np.linalg.norm(((sform - qform) @ positions)[:3], axis=0).max()
    if apart > APART * np.linalg.norm(sform[:3, :3], axis=0).min():
        apart_mm = apart * UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
        warn(path, f"its sform and qform lie {apart_mm:.3g} mm apart; the sform is used")
