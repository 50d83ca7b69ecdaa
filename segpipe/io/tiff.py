"""TIFF images as volumes: channels, pages, and millimetres where ImageJ or OME give them."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.io.apart import decoded
from segpipe.io.images import PIXELS, to_upright
from segpipe.io.notes import warnings_of
from segpipe.io.tiff_colours import in_colour, with_palette, without_opaque_alpha
from segpipe.io.tiff_spacing import spacing_mm
from segpipe.io.unpack import regular_size
from segpipe.memory import available_bytes
from segpipe.text import first_line

ENDINGS = (".tiff", ".tif")
HEADER = 8  # bytes of a file that hold no voxels
FILLED = 16  # bytes to which a writer may have rounded up
SMALLER_COPY = 1  # bits of a page's tag NewSubfileType
TRANSPARENCY_MASK = 4
DEFLATE = (8, 32946)
WHOLE_BYTES = (8, 16, 32, 64)
WHOLE_SLIDES = ("svs", "ndpi", "philips", "bif", "scn", "qpi", "avs", "trestle", "ventana")
CHANNELS = "CS"
TIMES = "T"


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a TIFF as `(C, x, y, z)`, and the affine to mm, or to px where it has no millimetres.

    Pages are slices. A palette is applied, and a fourth channel that is opaque everywhere dropped.
    """
    return _read(path, keep_indices=False)


def read_label(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a label map as `read` does, but with the indices of a palette."""
    return _read(path, keep_indices=True)


def _read(path: Path, keep_indices: bool) -> tuple[np.ndarray, np.ndarray]:
    with _opened(path) as tiff:
        array, axes = _read_series(path, tiff)
        page = tiff.pages.first
        if not tiff.is_imagej:  # whose tables of colours and inverted grey are only for display
            if not keep_indices:
                array, axes = with_palette(page, array, axes)
            array = in_colour(path, page, array, axes)
        channels = without_opaque_alpha(path, page, _channels_first(path, array, axes))
        return _upright(page, channels), _affine(tiff, channels.shape[3])


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine from the header."""
    with _opened(path) as tiff:
        series = _only_series(path, tiff)
        sizes = dict(zip(series.axes, series.shape, strict=True))
        slices = [sizes[axis] for axis in _slice_axes(path, series.axes, series.shape)]
        depth = slices[0] if slices else 1
        columns, rows = sizes["X"], sizes["Y"]
        if _orientation(tiff.pages.first) >= 5:
            columns, rows = rows, columns
        return (columns, rows, depth), _affine(tiff, depth)


def files(path: Path) -> list[Path]:
    """Return all files that the voxels come from."""
    return [path]


def unit_of(path: Path) -> str:
    """Return `mm` where the file gives the size of its voxels, else `px`."""
    (_, _, depth), _ = read_grid(path)
    with _opened(path) as tiff:
        return "px" if spacing_mm(tiff, depth) is None else "mm"


def write_stack(voxels: np.ndarray, affine: np.ndarray, in_mm: bool, path: Path) -> None:
    """Write a volume `(x, y, z)` with a page per slice.

    Args:
        voxels: whole numbers.
        affine: the affine of the scan, whose spacing the header gets.
        in_mm: whether the spacing is in mm; a file in pixels has none.
        path: file to write.
    """
    import tifffile

    metadata: dict[str, Any] = {"axes": "ZYX"}
    if in_mm:
        for axis, size in zip("XYZ", np.abs(np.diag(affine))[:3].tolist(), strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "mm"}
    tifffile.imwrite(
        path,
        np.ascontiguousarray(voxels.T),
        ome=True,
        photometric="minisblack",
        compression="zlib",
        metadata=metadata,
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a TIFF for a block whose errors become a `DataError` with the file's name."""
    import tifffile

    regular_size(path)
    try:
        # an OME header may name other files, which are not ours to open
        with warnings_of("tifffile", path), tifffile.TiffFile(path, _multifile=False) as tiff:
            if not len(tiff.pages):
                raise ValueError("it has no pages")
            yield tiff
    except DataError:
        raise
    except Exception as error:  # what tifffile and the codecs raise at a damaged file has no end
        raise DataError(f"{path}: cannot be read as TIFF ({first_line(error)})") from None


def _read_series(path: Path, tiff: Any) -> tuple[np.ndarray, str]:
    """Read the pages as one array, and the letters of its axes."""
    series = _only_series(path, tiff)
    _check_bytes(path, series)
    if all(_is_plain(page.keyframe) for page in series.pages):
        array = series.asarray(maxworkers=1)
    else:
        (array,) = decoded("tiff", str(path), [str(path)], series.nbytes)
    if array.shape != series.shape:
        raise ValueError(f"it holds {array.shape} where it declares {series.shape}")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    return array, series.axes


def _is_plain(page: Any) -> bool:
    """Return whether a page needs no decoder but that of zlib, whose data are checked before."""
    packed = page.compression not in (1, *DEFLATE) or page.predictor != 1
    return not packed and page.fillorder == 1 and page.bitspersample in WHOLE_BYTES


def decode(name: str) -> Iterator[np.ndarray]:
    """Yield the voxels of a TIFF, in a process that may die.

    Raises:
        DataError: if they cannot be decoded.
    """
    path = Path(name)
    with _opened(path) as tiff:
        yield _only_series(path, tiff).asarray(maxworkers=1)


def _only_series(path: Path, tiff: Any) -> Any:
    """Return the pages in full resolution that belong together.

    Raises:
        DataError: if they are not of one size, or several images.
    """
    sizes: dict[str, int] = {}
    orientations = set()
    for page in tiff.pages:
        is_copy = int(page.subfiletype) & (SMALLER_COPY | TRANSPARENCY_MASK)
        if not is_copy and not tiff.is_imagej:
            size = f"{page.imagewidth} x {page.imagelength}"
            sizes.setdefault(size, page.index)
            orientations.add(_orientation(page))
    if len(orientations) > 1:
        raise DataError(
            f"{path}: has pages of the orientations {sorted(orientations)}; save all upright"
        )
    is_slide = any(getattr(tiff, f"is_{kind}", False) for kind in WHOLE_SLIDES)
    if len(sizes) > 1 and not is_slide:
        raise DataError(
            f"{path}: has pages of differing sizes ({', '.join(list(sizes)[:3])}); "
            "save each as a file of its own"
        )
    series = [one for one in tiff.series if not _is_copy(one)]
    if len(series) > 1 and not is_slide:
        raise DataError(f"{path}: holds {len(series)} images; save each as a file of its own")
    return (series or tiff.series)[0]


def _is_copy(series: Any) -> bool:
    return bool(int(series.keyframe.subfiletype) & (SMALLER_COPY | TRANSPARENCY_MASK))


def _check_bytes(path: Path, series: Any) -> None:
    """Compare the declared voxels with the file and the memory.

    Raises:
        DataError: if the file is cut short, or packs more than it declares.
    """
    if series.nbytes > available_bytes():
        raise DataError(
            f"{path}: declares {series.nbytes} bytes of voxels, and {available_bytes()} bytes of "
            "memory are free"
        )
    if series.dtype.kind == "c":
        raise DataError(f"{path}: holds complex numbers; segpipe reads real ones")
    size = regular_size(path)
    for page in series.pages:
        if page is None:
            raise DataError(f"{path}: misses pages that its header declares")
        _check_segments(path, page, size)


def _check_segments(path: Path, page: Any, size: int) -> None:
    """Check that the strips or tiles of a page lie in the file, and unpack to what they declare."""
    keyframe = page.keyframe
    ends = np.add(page.dataoffsets, page.databytecounts)
    if not len(ends) or ends.max() > size or min(page.databytecounts) < 1:
        raise DataError(f"{path}: its pages lie beyond the end of the file; it is cut short")
    expected = int(np.prod(keyframe.chunked))
    if min(page.dataoffsets) < HEADER or len(page.dataoffsets) != expected:
        raise DataError(
            f"{path}: has {len(page.dataoffsets)} strips or tiles of a page from byte "
            f"{min(page.dataoffsets)} on, and its header declares {expected}; it is damaged"
        )
    if keyframe.compression == 1:
        _check_plain(path, page)
    if keyframe.compression in DEFLATE:
        most = int(np.prod(keyframe.chunks)) * keyframe.dtype.itemsize
        with path.open("rb") as file:
            for offset, packed in zip(page.dataoffsets, page.databytecounts, strict=True):
                file.seek(offset)
                unpacked = zlib.decompressobj().decompress(file.read(packed), most + 1)
                if len(unpacked) > most:
                    raise DataError(f"{path}: unpacks to more than its header declares")


def _check_plain(path: Path, page: Any) -> None:
    """Check that the strips or tiles of a page that is not packed have the bytes of its voxels."""
    keyframe = page.keyframe
    present = sum(page.databytecounts)
    declared = int(np.prod(keyframe.shape)) * keyframe.bitspersample // 8
    if present < declared:
        raise DataError(f"{path}: holds fewer bytes than its header declares; it is cut short")
    row = int(np.prod(keyframe.chunks[1:])) * keyframe.bitspersample
    most = keyframe.chunks[0] * -(-row // 8)  # the last strip may be filled to its full height
    if max(page.databytecounts) > most + FILLED:
        raise DataError(
            f"{path}: holds up to {max(page.databytecounts)} bytes in a strip or tile, and its "
            f"header declares {most}; it is damaged"
        )


def _channels_first(path: Path, array: np.ndarray, axes: str) -> np.ndarray:
    """Return the voxels `(C, x, y, z)` of an array whose axes these letters name."""
    slices = _slice_axes(path, axes, array.shape)
    order = [axes.index(axis) for axis in axes if axis in CHANNELS]
    channels = int(np.prod([array.shape[axis] for axis in order], dtype=int))
    order += [axes.index("X"), axes.index("Y"), *map(axes.index, slices)]
    others = [axis for axis in range(array.ndim) if axis not in order]
    columns, rows = array.shape[axes.index("X")], array.shape[axes.index("Y")]
    return array.transpose(*others, *order).reshape(channels, columns, rows, -1)


def _slice_axes(path: Path, axes: str, shape: tuple[int, ...]) -> list[str]:
    """Return the axis of the slices, if there is one.

    Raises:
        DataError: if the file has further axes, such as time.
    """
    longer = []
    for axis, size in zip(axes, shape, strict=True):
        if axis in f"XY{CHANNELS}" or size <= 1:
            continue
        if axis == TIMES:
            raise DataError(f"{path}: holds {size} points of time; save each as a file of its own")
        longer.append(axis)
    if not {"X", "Y"} <= set(axes):
        raise DataError(f"{path}: has the axes {axes}, but no rows and columns")
    if len(longer) > 1:
        raise DataError(f"{path}: has the axes {axes} of {shape}; a volume has one axis of pages")
    return longer


def _upright(page: Any, channels: np.ndarray) -> np.ndarray:
    """Return voxels `(C, x, y, z)` as the page's orientation asks."""
    rows_first = channels.transpose(2, 1, 0, 3)
    return to_upright(rows_first, _orientation(page)).transpose(2, 1, 0, 3)


def _orientation(page: Any) -> int:
    found = page.tags.valueof(274, 1)
    return int(found) if 1 <= int(found) <= 8 else 1


def _affine(tiff: Any, depth: int) -> np.ndarray:
    """Return the affine of the voxels, to mm where the file gives the size of a stack's voxels."""
    spacing = spacing_mm(tiff, depth) or (1.0, 1.0, 1.0)
    return PIXELS @ np.diag([*spacing, 1.0])
