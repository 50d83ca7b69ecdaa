"""What SimpleITK reads: NRRD, MetaImage, and folders that hold one DICOM series."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError

FOREIGN = (".nrrd", ".nhdr", ".mha", ".mhd")
RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNEVEN = 0.02  # of the distance between slices: more is no rounding of the scanner's any more
TILTED_DEG = 0.1
POSITION, ORIENTATION, MAGIC = "0020|0032", "0020|0037", b"DICM"


@dataclass(frozen=True)
class Slice:
    """Where a file of a series lies, in LPS+.

    Attributes:
        file: its path.
        position: of the first voxel's centre, mm.
        rows: directions of increasing column and of increasing row, (2, 3).
        size: columns and rows.
        spacing: mm between columns and between rows.
    """

    file: Path
    position: np.ndarray
    rows: np.ndarray
    size: tuple[int, int]
    spacing: tuple[float, float]


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files, by the mark that each begins with."""
    return folder.is_dir() and any(_is_dicom(file) for file in folder.iterdir())


def _is_dicom(file: Path) -> bool:
    if not file.is_file() or file.name.startswith("."):
        return False
    with file.open("rb") as content:
        return content.read(132)[128:] == MAGIC


def itk_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape `(x, y, z)` and affine to mm in RAS+, from the headers alone.

    Raises:
        DataError: if it cannot be read, or is no volume with one affine.
    """
    if path.is_dir():
        slices = _slices(path)
        return (*slices[0].size, len(slices)), _series_affine(slices)
    reader = _opened(path)
    if reader.GetDimension() != 3:
        raise DataError(
            f"{path}: has {reader.GetDimension()} axes; a scan has 3, with one file a channel"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    return tuple(reader.GetSize()), _as_nifti(affine)


def read_itk(path: Path) -> np.ndarray:
    """The voxels `(c, x, y, z)`; of DICOM rescaled as the file says (CT: HU).

    Raises:
        DataError: if they cannot be read.
    """
    sitk = _sitk()
    try:
        image = sitk.ReadImage(
            [str(one.file) for one in _slices(path)] if path.is_dir() else str(path)
        )
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from None
    voxels = sitk.GetArrayFromImage(image)  # (z, y, x), channels last
    voxels = voxels[..., None] if voxels.ndim == 3 else voxels
    return voxels.transpose(3, 2, 1, 0)


def _sitk() -> Any:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(
        False
    )  # of ITK's C++, past Python's warnings; errors are raised
    return SimpleITK


def _opened(path: Path) -> Any:
    """A reader that knows the file's header.

    Raises:
        DataError: if it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    reader = _sitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(
            f"{path}: cannot be read ({_reason(error)}); {path.stat().st_size} bytes"
        ) from None
    return reader


def _reason(error: RuntimeError) -> str:
    """The last line of what ITK says, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ") if lines else "no reason given"


def _as_nifti(affine: np.ndarray) -> np.ndarray:
    """In RAS+ and in single precision, as the mask's header will hold it."""
    return (RAS_OF_LPS @ affine).astype(np.float32).astype(float)


def _slices(folder: Path) -> list[Slice]:
    """The slices of a series, in the order in which they lie.

    Raises:
        DataError: if they are not one stack of equal, evenly spaced slices.
    """
    series = _sitk().ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise DataError(
            f"{folder}: holds {len(series)} DICOM series of images; give each a folder of its own"
        )
    names = _sitk().ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    slices = [_slice(Path(name)) for name in names]
    first = slices[0]
    for one in slices:
        if one.size != first.size or not np.allclose(one.rows, first.rows, atol=1e-3):
            raise DataError(
                f"{one.file}: differs in size or orientation from {first.file.name}; they are no one stack"
            )
    normal = np.cross(*first.rows)
    slices.sort(key=lambda one: float(one.position @ normal))
    if len(slices) > 1:
        _check_stack(folder, slices, normal)
    return slices


def _slice(file: Path) -> Slice:
    reader = _opened(file)
    missing = [tag for tag in (POSITION, ORIENTATION) if not reader.HasMetaDataKey(tag)]
    if missing:
        raise DataError(
            f"{file}: has no position or orientation of the slice (tag {missing[0].replace('|', ',')})"
        )
    position, rows = (
        np.array(reader.GetMetaData(tag).split("\\"), float) for tag in (POSITION, ORIENTATION)
    )
    columns, height = reader.GetSize()[:2]
    across, down = reader.GetSpacing()[:2]
    if len(reader.GetSize()) > 2 and reader.GetSize()[2] > 1:
        raise DataError(
            f"{file}: holds {reader.GetSize()[2]} frames; segpipe reads DICOM of one slice a file"
        )
    return Slice(file, position, rows.reshape(2, 3), (columns, height), (across, down))


def _check_stack(folder: Path, slices: Sequence[Slice], normal: np.ndarray) -> None:
    positions = np.array([one.position for one in slices])
    steps = np.diff(positions @ normal)
    usual = float(np.median(steps))
    worst = int(np.abs(steps - usual).argmax())
    if usual <= 0 or abs(steps[worst] - usual) > UNEVEN * usual:
        pair = f"{slices[worst].file.name} and {slices[worst + 1].file.name}"
        times = float(steps[worst] / usual) if usual > 0 else 0.0
        whole = round(times) > 1 and abs(times - round(times)) < 0.1
        why = f"{round(times) - 1} missing between them" if whole else "the spacing is uneven"
        raise DataError(
            f"{folder}: {pair} lie {steps[worst]:.3g} mm apart, most slices {usual:.3g} mm: {why}"
        )
    way = positions[-1] - positions[0]
    tilt = math.degrees(math.acos(min(1.0, float(way @ normal / np.linalg.norm(way)))))
    if tilt > TILTED_DEG:
        raise DataError(
            f"{folder}: the gantry is tilted by {tilt:.1f} degrees; resample the series to upright slices"
        )


def _series_affine(slices: Sequence[Slice]) -> np.ndarray:
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = (
        first.rows[0] * first.spacing[0],
        first.rows[1] * first.spacing[1],
    )
    affine[:3, 2] = (
        (last.position - first.position) / (len(slices) - 1) if last is not first else _thick(first)
    )
    affine[:3, 3] = first.position
    return _as_nifti(affine)


def _thick(only: Slice) -> np.ndarray:
    """The step of a stack of one slice: its thickness, as its reader has it."""
    return np.cross(*only.rows) * float(_opened(only.file).GetSpacing()[2])
