"""PNG and JPEG images as volumes of one slice."""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from segpipe.errors import DataError
from segpipe.io import png
from segpipe.io.notes import ALPHA_DROPPED, say_once, warn
from segpipe.io.unpack import regular_size
from segpipe.text import first_line

ENDINGS = (".png", ".jpeg", ".jpg")
KINDS = ("PNG", "JPEG")  # Pillow would start Ghostscript for others, whatever the ending
PIXELS = np.diag([-1.0, -1.0, 1.0, 1.0])  # columns to the patient's left, rows to the back
WITH_ALPHA = (2, 4)  # numbers of samples of which the last one is opacity
JPEG_RATIO = 3000  # pixels per byte of a JPEG of one colour, at most
IMAGE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    zlib.error,
    Image.DecompressionBombError,
)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image as `(C, x, y, 1)`, upright as its EXIF says, and an affine of 1 px.

    A palette is applied. Transparency is dropped, with a warning where it varies.
    """
    with _opened(path) as image:
        _check_pixels(path, image)
        if _is_deep_colour(path, image):
            array = png.read_deep_colour(path)
            if array.shape[2] in WITH_ALPHA:
                _say_what_alpha_was(path, array[..., -1])
                array = array[..., :-1]
        else:
            array = np.asarray(_in_colour(path, image))
        return _as_volume(array, _orientation(image)), PIXELS.copy()


def read_label(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a label map as `read` does, but with the indices of a palette, and as it is stored."""
    with _opened(path) as image:
        _check_pixels(path, image)
        if _is_deep_colour(path, image):
            array = png.read_deep_colour(path)
        else:
            array = _as_stored(path, image)
        if array.ndim == 3 and array.shape[2] in WITH_ALPHA:
            array = array[..., :-1]
        return _as_volume(array, _orientation(image)), PIXELS.copy()


def _is_deep_colour(path: Path, image: Image.Image) -> bool:
    return image.format == "PNG" and png.header_of(path).is_deep_colour


def _as_stored(path: Path, image: Image.Image) -> np.ndarray:
    """Return the samples of an image; Pillow spreads grey of 2 and 4 bits over 0 to 255."""
    array = np.asarray(image)
    if image.format != "PNG":
        return array
    header = png.header_of(path)
    is_spread = header.colour == png.GREY and header.depth in (2, 4)
    return array // (255 // (2**header.depth - 1)) if is_spread else array


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, 1)` of the upright image, and the affine, from the header."""
    with _opened(path) as image:
        columns, rows = image.size
        if _orientation(image) >= 5:  # turned by a quarter
            columns, rows = rows, columns
        return (columns, rows, 1), PIXELS.copy()


def files(path: Path) -> list[Path]:
    """Return all files that the voxels come from."""
    return [path]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image for a block whose errors become a `DataError` with the file's name."""
    regular_size(path)
    try:
        with Image.open(path, formats=KINDS) as image:
            pictures = getattr(image, "n_frames", 1)
            if image.format == "PNG" and pictures > 1:
                raise ValueError(f"an animation of {pictures} pictures")
            if pictures > 1:  # of a camera, mostly a preview or a map of brightness
                say_once(path, "it holds further pictures after the first, which are left out")
            yield image
    except DataError:
        raise
    except IMAGE_ERRORS as error:
        raise DataError(f"{path}: cannot be read as an image ({first_line(error)})") from None


def _check_pixels(path: Path, image: Image.Image) -> None:
    """Compare the declared pixels with the file and the memory, and the checksums of a PNG."""
    columns, rows = image.size
    packed = regular_size(path)
    if image.format == "PNG":
        png.check(path)
    elif columns * rows > packed * JPEG_RATIO:
        raise DataError(
            f"{path}: declares {columns} x {rows} pixels, and has {packed} bytes; "
            "it is cut short or damaged, get it again"
        )


def _as_volume(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return an array `(rows, columns)` or `(rows, columns, C)` upright as `(C, x, y, 1)`."""
    if array.dtype == bool:
        array = array.astype(np.uint8)
    upright = to_upright(array.reshape(*array.shape[:2], -1), orientation)
    return upright.transpose(2, 1, 0)[..., None]


def to_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return rows and columns, the first two axes, turned as the orientation of EXIF asks."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _orientation(image: Image.Image) -> int:
    """Return the orientation of EXIF, 1 to 8, without reading the pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _in_colour(path: Path, image: Image.Image) -> Image.Image:
    """Convert images with transparency, a palette or another colour space to grey or RGB."""
    mode = image.mode
    is_grey = mode == "LA" or (mode == "P" and _has_grey_palette(path, image))
    if mode == "PA" or (mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        _say_what_alpha_was(path, np.asarray(image.getchannel("A")))
    elif mode not in ("P", "CMYK", "YCbCr", "HSV", "LAB"):
        return image
    return image.convert("L" if is_grey else "RGB")


def _has_grey_palette(path: Path, image: Image.Image) -> bool:
    """Return whether all colours that the pixels use are grey.

    Raises:
        DataError: if they use more colours than the palette has.
    """
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    indices = np.unique(np.asarray(image))
    if indices[-1] >= len(colours):
        raise DataError(f"{path}: uses colour {indices[-1]} of a palette of {len(colours)}")
    used = colours[indices]
    return bool((used == used[:, :1]).all())


def _say_what_alpha_was(path: Path, alpha: np.ndarray) -> None:
    """Say that transparency is left out; warn where it varies, and so may have been data."""
    if alpha.min() == alpha.max():
        say_once(path, ALPHA_DROPPED)
    else:
        warn(
            path,
            f"its transparency varies from {alpha.min()} to {alpha.max()} and is left out; "
            "if it is data, save it as a TIFF or as a file of its own",
        )
