"""PNG and JPEG images as volumes of one slice."""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from segpipe.errors import DataError
from segpipe.io.apart import decoded
from segpipe.io.notes import ALPHA_DROPPED, say_once, warn
from segpipe.io.unpack import check_size, regular_size
from segpipe.text import first_line

ENDINGS = (".png", ".jpeg", ".jpg")
KINDS = ("PNG", "JPEG")  # Pillow would start Ghostscript for others, whatever the ending
PIXELS = np.diag([-1.0, -1.0, 1.0, 1.0])  # columns to the patient's left, rows to the back
PNG_BITS = slice(24, 26)  # bits per sample and type of colour in the header of a PNG
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
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
        if _is_deep_colour(path):
            array = _read_deep_colour(path)
        else:
            array = np.asarray(_in_colour(path, image))
        return _as_volume(array, _orientation(image)), PIXELS.copy()


def read_label(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a label map as `read` does, but with the indices of a palette, and as it is stored."""
    with _opened(path) as image:
        _check_pixels(path, image)
        depth, colour = _png_header(path)
        array = np.asarray(image)
        if depth in (2, 4) and colour == GREY:
            array = array // (255 // (2**depth - 1))  # Pillow spreads them over 0 to 255
        if array.ndim == 3 and image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
            array = array[..., :-1]
        return _as_volume(array, _orientation(image)), PIXELS.copy()


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
            if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"an animation of {getattr(image, 'n_frames', 1)} pictures")
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
        bits = _png_header(path)[0] * len(image.getbands())
        check_size(path, packed, columns * rows * bits // 8, "zlib")
        with Image.open(path, formats=KINDS) as checked:
            checked.verify()
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


def _png_header(path: Path) -> tuple[int, int]:
    """Return the bits per sample and the type of colour of a PNG; (8, RGB) of other formats."""
    with path.open("rb") as file:
        start = file.read(PNG_BITS.stop)
    if not start.startswith(b"\x89PNG"):
        return 8, RGB
    depth, colour = start[PNG_BITS]
    return depth, colour


def _is_deep_colour(path: Path) -> bool:
    """Return whether a PNG has 16 bits in several samples, which Pillow would cut to 8."""
    depth, colour = _png_header(path)
    return depth == 16 and colour in (RGB, GREY_ALPHA, RGB_ALPHA)


def _read_deep_colour(path: Path) -> np.ndarray:
    """Read a PNG of 16 bits and several samples.

    Pillow would leave 8 of the bits.
    """
    (array,) = decoded("png", str(path), [str(path)])
    if array.shape[2] in (2, 4):
        _say_what_alpha_was(path, array[..., -1])
        array = array[..., :-1]
    return array


def decode(name: str) -> Iterator[np.ndarray]:
    """Yield the samples of a PNG, in a process that may die.

    Raises:
        DataError: if they cannot be decoded.
    """
    import imagecodecs

    try:
        yield np.asarray(imagecodecs.png_decode(Path(name).read_bytes()))
    except imagecodecs.PngError as error:
        raise DataError(f"{name}: cannot be read as an image ({first_line(error)})") from None


def _in_colour(path: Path, image: Image.Image) -> Image.Image:
    """Convert images with transparency, a palette or another colour space to grey or RGB."""
    mode = image.mode
    if mode == "P":
        return image.convert("L" if _has_grey_palette(image) else "RGB")
    if mode == "PA":
        image = image.convert("RGBA")
    if "A" in image.mode:
        _say_what_alpha_was(path, np.asarray(image.getchannel("A")))
        return image.convert("L" if mode == "LA" else "RGB")
    if mode in ("CMYK", "YCbCr", "HSV", "LAB"):
        return image.convert("RGB")
    return image


def _has_grey_palette(image: Image.Image) -> bool:
    """Return whether all colours that the pixels use are grey."""
    given = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(given)] = given
    used = colours[np.unique(np.asarray(image))]
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
