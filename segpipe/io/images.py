"""PNG, TIFF and JPEG images as volumes of one slice."""

from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.errors import DataError
from segpipe.text import first_line

ENDINGS = (".png", ".tiff", ".tif", ".jpeg", ".jpg")


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, 1)` and the affine of a 2D image."""
    voxels, affine = read(path)
    return voxels.shape[1:], affine


def files(path: Path) -> list[Path]:
    """Return all files that the voxels come from."""
    return [path]


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 2D image as `(C, x, y, 1)`; transparency is dropped."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            array = np.asarray(_without_alpha(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({first_line(error)})") from None
    if array.dtype == bool:
        array = array.astype(np.uint8)
    rows_columns_channels = array.reshape(*array.shape[:2], -1)
    return rows_columns_channels.transpose(2, 1, 0)[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])


def _without_alpha(image: Image.Image) -> Image.Image:
    """Convert images with transparency or unusual colour spaces to grey or RGB."""
    if image.mode == "LA":
        return image.convert("L")
    if "A" in image.mode or image.mode in ("CMYK", "YCbCr", "HSV"):
        return image.convert("RGB")
    return image
