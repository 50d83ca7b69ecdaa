"""Folders of one DICOM series, read by SimpleITK."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.io.itk import import_sitk, open_header, read_voxels, to_nifti
from segpipe.io.nifti import check_header

ENDINGS = ()
UNEVEN = 0.02  # relative deviation of a slice distance beyond a scanner's rounding
TILTED_DEG = 0.1
POSITION = "0020|0032"
ORIENTATION = "0020|0037"
DICOM_MAGIC = b"DICM"


@dataclass(frozen=True)
class Slice:
    """The position of one DICOM file of a series, in LPS+ coordinates.

    Attributes:
        file: path.
        position: centre of the first voxel, mm.
        rows: unit vectors of increasing column and of increasing row, (2, 3).
        size: number of columns and rows.
        spacing: mm between columns and between rows.
    """

    file: Path
    position: np.ndarray
    rows: np.ndarray
    size: tuple[int, int]
    spacing: tuple[float, float]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector perpendicular to the slice, (3,)."""
        return np.cross(*self.rows)


def is_series(folder: Path) -> bool:
    """Return whether a folder holds DICOM files, judged by the mark in their preamble."""
    return folder.is_dir() and any(map(_is_dicom, folder.iterdir()))


def _is_dicom(file: Path) -> bool:
    if not file.is_file() or file.name.startswith("."):
        return False
    with file.open("rb") as content:
        return content.read(132)[128:] == DICOM_MAGIC


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)`, rescaled (CT: to HU), and the affine to mm in RAS+."""
    shape, affine = read_grid(path)
    check_header(path, shape, affine)
    return read_voxels(path, list(map(str, files(path)))), affine


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine to mm in RAS+, from the headers alone.

    Raises:
        DataError: if the folder is not one stack of slices.
    """
    slices = _read_slices(path)
    return (*slices[0].size, len(slices)), _series_affine(slices)


def files(path: Path) -> list[Path]:
    """Return the files of the slices, in their order."""
    return [item.file for item in _read_slices(path)]


def _read_slices(folder: Path) -> list[Slice]:
    """Read the slices of a series, sorted along their normal.

    Raises:
        DataError: if they are not one stack of equal, evenly spaced slices.
    """
    sitk_reader = import_sitk().ImageSeriesReader
    series = sitk_reader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise DataError(
            f"{folder}: holds {len(series)} DICOM series of images; give each its own folder"
        )
    names = sitk_reader.GetGDCMSeriesFileNames(str(folder), series[0])
    slices = list(map(_read_slice, map(Path, names)))
    first = slices[0]
    for item in slices:
        if item.size != first.size or not np.allclose(item.rows, first.rows, atol=1e-3):
            raise DataError(
                f"{item.file}: differs in size or orientation from {first.file.name}; "
                "the slices of a scan must form one stack"
            )
    normal = first.normal
    slices.sort(key=lambda item: float(item.position @ normal))
    if len(slices) > 1:
        _check_spacing(folder, slices, normal)
        _check_tilt(folder, slices, normal)
    return slices


def _read_slice(file: Path) -> Slice:
    """Read the position of one file.

    Raises:
        DataError: if it has none, or holds several frames.
    """
    reader = open_header(file)
    for tag in (POSITION, ORIENTATION):
        if not reader.HasMetaDataKey(tag):
            name = tag.replace("|", ",")
            raise DataError(f"{file}: has no position or orientation of the slice (tag {name})")
    columns, rows, *frames = reader.GetSize()
    if frames and frames[0] > 1:
        raise DataError(
            f"{file}: holds {frames[0]} frames; segpipe reads DICOM with one slice per file"
        )
    column_mm, row_mm = reader.GetSpacing()[:2]
    return Slice(
        file,
        position=_read_numbers(reader, POSITION),
        rows=_read_numbers(reader, ORIENTATION).reshape(2, 3),
        size=(columns, rows),
        spacing=(column_mm, row_mm),
    )


def _read_numbers(reader: Any, tag: str) -> np.ndarray:
    """Return the numbers of a DICOM tag, which backslashes separate."""
    return np.array(reader.GetMetaData(tag).split("\\"), float)


def _check_spacing(folder: Path, slices: Sequence[Slice], normal: np.ndarray) -> None:
    """Check that neighbouring slices lie equally far apart.

    Raises:
        DataError: if they do not, with the likely reason.
    """
    positions = np.array([item.position for item in slices])
    steps = np.diff(positions @ normal)
    usual = float(np.median(steps))
    worst = int(np.abs(steps - usual).argmax())
    if usual > 0 and abs(steps[worst] - usual) <= UNEVEN * usual:
        return
    pair = f"{slices[worst].file.name} and {slices[worst + 1].file.name}"
    ratio = float(steps[worst] / usual) if usual > 0 else 0.0
    missing = round(ratio) - 1
    reason = "the spacing is uneven"
    if missing > 0 and abs(ratio - round(ratio)) < 0.1:
        reason = f"{missing} missing between them"
    raise DataError(
        f"{folder}: {pair} lie {steps[worst]:.3g} mm apart, most slices {usual:.3g} mm: {reason}"
    )


def _check_tilt(folder: Path, slices: Sequence[Slice], normal: np.ndarray) -> None:
    """Check that the stack runs along the normal of its slices.

    Raises:
        DataError: if it does not, since its voxels would not be boxes.
    """
    direction = slices[-1].position - slices[0].position
    cosine = float(direction @ normal / np.linalg.norm(direction))
    tilt_deg = math.degrees(math.acos(min(1.0, cosine)))
    if tilt_deg > TILTED_DEG:
        raise DataError(
            f"{folder}: the gantry is tilted by {tilt_deg:.1f} degrees; "
            "resample the series to upright slices"
        )


def _series_affine(slices: Sequence[Slice]) -> np.ndarray:
    """Return the affine of a sorted stack from voxel indices to mm in RAS+."""
    first = slices[0]
    affine = np.eye(4)
    affine[:3, 0] = first.rows[0] * first.spacing[0]
    affine[:3, 1] = first.rows[1] * first.spacing[1]
    affine[:3, 2] = _slice_step(slices)
    affine[:3, 3] = first.position
    return to_nifti(affine)


def _slice_step(slices: Sequence[Slice]) -> np.ndarray:
    """Return the vector from one slice to the next, mm; the thickness where there is only one."""
    first = slices[0]
    if len(slices) == 1:
        return first.normal * float(open_header(first.file).GetSpacing()[2])
    return (slices[-1].position - first.position) / (len(slices) - 1)
