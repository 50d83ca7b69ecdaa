"""The frames of a DICOM file: where each lies, and how its numbers become values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_file import guarded, import_pydicom, read_header
from segpipe.io.dicom_tags import (
    DOSE,
    GROUPS,
    OF_FILE,
    OF_FRAME,
    PIXEL_SPACINGS,
    PLACE,
    TRAITS,
    frame_values,
    plain,
    segment_names,
    whole_number,
)

# bytes of pixels that a file may always unpack to, and times its packed bytes beyond them
ANY_PACKING = 2**28
MOST_PACKED = 1000


@dataclass(frozen=True, eq=False)
class Header:
    """What a DICOM file says of itself.

    Attributes:
        path: the path of the file.
        series: unique id of its series.
        number: the number of its series; 0 where it has none.
        instance: number of the file in the series.
        kind: unique id of its class (CT, MR, segmentation ...).
        kind_name: the name of the class.
        description: the description of its series.
        size: number of columns and rows; zeros where it holds no image.
        samples: numbers per pixel.
        count: frames.
        segmentation: BINARY, FRACTIONAL or LABELMAP; empty for others.
        segments: names of the segments by their numbers, the background left out.
        localiser: whether it is a scout for planning.
        trouble: the reason why its pixels cannot be used; empty if they can.
        frames: its frames, in the order of the file.
        packed: whether its pixels are compressed.
        native_bytes: the bytes that its pixels take when unpacked.
    """

    path: Path
    series: str
    number: int
    instance: int
    kind: str
    kind_name: str
    description: str
    size: tuple[int, int]
    samples: int
    count: int
    segmentation: str
    segments: Mapping[int, str]
    localiser: bool
    trouble: str
    packed: bool
    native_bytes: int
    frames: tuple["Frame", ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether the file holds pixels of a scan."""
        return self.size != (0, 0) and self.kind != DOSE

    @property
    def sectional(self) -> bool:
        """Whether its class is of slices, which must have positions (CT, MR, PET)."""
        return self.kind_name.lower().startswith(("ct ", "mr ", "positron", "enhanced", "legacy"))


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a file, in LPS+ coordinates.

    Attributes:
        header: the header of its file.
        index: its index in the file, from 0.
        placed: whether the file says where the frame lies.
        position: centre of the first voxel, mm; zeros where it is not placed.
        rows: unit vectors of increasing column and of increasing row, (2, 3).
        spacing: mm between columns and between rows; None without a tag, zeros of a useless one.
        thickness: mm to the next slice where there is only one; None if the file has none.
        slope: the slope of the stored numbers.
        intercept: the intercept of the stored numbers.
        stack: what an enhanced file calls its stack.
        segment: number of the segment that a frame of a segmentation shows; 0 for others.
        traits: values of `TRAITS`.
    """

    header: Header = field(repr=False)
    index: int
    placed: bool
    position: np.ndarray
    rows: np.ndarray
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    stack: str
    segment: int
    traits: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.header.path

    @property
    def name(self) -> str:
        """Name of the file, with the number of the frame where it has several."""
        if self.header.count == 1:
            return self.path.name
        return f"{self.path.name} frame {self.index + 1}"

    @property
    def normal(self) -> np.ndarray:
        """Unit vector perpendicular to the slice, (3,)."""
        return np.cross(*self.rows)

    def check(self) -> None:
        """Check that the frame can become values at a place.

        Raises:
            DataError: otherwise.
        """
        if self.header.trouble:
            raise DataError(f"{self.path}: {self.header.trouble}")
        if not math.isfinite(self.slope * self.intercept) or self.slope == 0:
            raise DataError(
                f"{self.path}: has the rescale slope {self.slope} and intercept {self.intercept}; "
                "export the series again"
            )
        if self.spacing == (0, 0):
            raise DataError(f"{self.path}: its pixel spacing is not two numbers of mm above zero")
        if abs(self.rows @ self.rows.T - np.eye(2)).max() > 0.01:
            directions = self.rows.round(4).ravel().tolist()
            raise DataError(f"{self.path}: the orientation {directions} is not that of a slice")


def open_header(path: Path) -> Header:
    """Read the header of a file; it is kept until the file changes.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        raise DataError(f"{path}: no such file") from None
    return _open_header(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2**14)
def _open_header(path: Path, _changed_ns: int, _size: int) -> Header:
    keywords = (*OF_FILE, *OF_FRAME, *GROUPS)
    data, pixel_bytes = read_header(path, keywords)
    with guarded(path):
        kind = str(data.get("SOPClassUID", ""))
        if not kind and not data.get("Rows"):
            raise DataError(f"{path}: is not a DICOM file (it names no class)")
        header = _make_header(path, data, kind, pixel_bytes)
        frames = []
        if header.is_image:
            for index, values in enumerate(frame_values(data, header.count)):
                if "ModalityLUTSequence" in data:  # which takes the place of a slope
                    values |= {"RescaleSlope": None, "RescaleIntercept": None}
                frames.append(_make_frame(header, index, values))
        object.__setattr__(header, "frames", tuple(frames))  # which point back to it
        return header


def _make_header(path: Path, data: Any, kind: str, pixel_bytes: int) -> Header:
    """Return the header without frames."""
    columns, rows = int(data.get("Columns") or 0), int(data.get("Rows") or 0)
    count = int(data.get("NumberOfFrames") or 1)
    image = columns > 0 and rows > 0
    samples = int(data.get("SamplesPerPixel") or 1)
    bits = rows * columns * count * samples * int(data.get("BitsAllocated") or 16)
    if data.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3
    image_type = plain(data.get("ImageType")) or ()
    pydicom = import_pydicom()
    return Header(
        path,
        series=str(data.get("SeriesInstanceUID", "")),
        number=whole_number(data, "SeriesNumber"),
        instance=whole_number(data, "InstanceNumber"),
        kind=kind,
        kind_name=pydicom.uid.UID(kind).name.removesuffix(" Storage"),
        description=str(data.get("SeriesDescription") or data.get("ProtocolName") or ""),
        size=(columns, rows) if image else (0, 0),
        samples=samples,
        count=count,
        segmentation=str(data.get("SegmentationType", "")),
        segments=segment_names(data),
        localiser="LOCALIZER" in image_type,
        trouble=_pixel_trouble(data, count, bits // 8, pixel_bytes, image_type) if image else "",
        packed=_is_packed(data),
        native_bytes=bits // 8,
    )


def _is_packed(data: Any) -> bool:
    """Return whether the pixels of a data set are compressed."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    return syntax is not None and syntax.is_transfer_syntax and syntax.is_encapsulated


def _pixel_trouble(data: Any, count: int, expected: int, given: int, image_type: Any) -> str:
    """Return why the pixels that follow a header cannot be what it declares; empty if they can."""
    if given < 8:
        return "has no pixels; the file is cut short"
    if count < 1:
        return f"declares {count} frames"
    least = 8 * count if _is_packed(data) else expected
    if given < least:
        return (
            f"its header declares {count} frames of {data.Columns}x{data.Rows} pixels "
            f"({least} bytes), and {given} bytes follow; the file is cut short or damaged"
        )
    if expected > ANY_PACKING + MOST_PACKED * given:
        return f"its header declares {expected} bytes of pixels, packed in {given}; it is damaged"
    if "MOSAIC" in image_type:
        return "is a mosaic of slices; convert the series with dcm2niix"
    return ""


def _make_frame(header: Header, index: int, values: dict[str, Any]) -> Frame:
    """Return a frame of what is known of it."""
    position = _numbers(values.get(PLACE[0]), 3)
    rows = _numbers(values.get(PLACE[1]), 6)
    traits = {name: values[name] for name in TRAITS if values.get(name) not in (None, "")}
    between = _positive(values.get("SpacingBetweenSlices"))
    return Frame(
        header,
        index,
        placed=position is not None and rows is not None,
        position=np.zeros(3) if position is None else position,
        rows=np.eye(2, 3) if rows is None else _unit(rows.reshape(2, 3)),
        spacing=_spacing(values),
        thickness=between or _positive(values.get("SliceThickness")),
        slope=_number(values.get("RescaleSlope"), 1.0),
        intercept=_number(values.get("RescaleIntercept"), 0.0),
        stack=str(values.get("StackID") or ""),
        segment=int(_number(values.get("ReferencedSegmentNumber"), 0.0)),
        traits=traits,
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return the directions of a slice with length 1; what has no length stays as it is."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _number(value: Any, default: float) -> float:
    return default if value in (None, "", ()) else float(value)


def _positive(value: Any) -> float | None:
    """Return the size of a number; None if it is missing, zero or not finite."""
    size = abs(_number(value, 0.0))
    return size if math.isfinite(size) and size > 0 else None


def _numbers(value: Any, count: int) -> np.ndarray | None:
    """Return `count` finite numbers; None if they are not that."""
    if not isinstance(value, tuple) or len(value) != count:
        return None
    try:
        numbers = np.array(value, float)
    except (TypeError, ValueError):
        return None
    return numbers if np.isfinite(numbers).all() else None


def _spacing(values: dict[str, Any]) -> tuple[float, float] | None:
    """Return mm between columns and between rows; None without a tag, zeros of useless ones."""
    given = [values[keyword] for keyword in PIXEL_SPACINGS if values.get(keyword)]
    for value in given:
        numbers = _numbers(value, 2)
        if numbers is not None and (numbers > 0).all():
            return float(numbers[1]), float(numbers[0])
    return (0.0, 0.0) if given else None
