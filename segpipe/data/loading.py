"""Read scans through MONAI's `LoadImage`, with segpipe's strict reader behind it, for training.

Prediction calls the same reader without MONAI, which takes longer to import than a small scan takes
to be segmented.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import LoadImage

from segpipe.config.data import NaNPolicy
from segpipe.io.formats import format_of
from segpipe.io.volumes import read_voxels


class ScanReader(ImageReader):
    """Reads every format that segpipe knows into arrays of shape `(c, x, y, z)`, strictly.

    Args:
        nan: what becomes of voxels that are NaN or infinite.
    """

    def __init__(self, nan: NaNPolicy) -> None:
        self.nan: NaNPolicy = nan

    def verify_suffix(self, filename: Any) -> bool:
        """Return whether the reader knows the file's ending."""
        return format_of(Path(filename)) is not None

    def read(self, data: Any, **_: Any) -> Path:
        """Return the path itself; `get_data` opens the file, where errors can name it."""
        if isinstance(data, Sequence) and not isinstance(data, str):
            data = data[0]
        return Path(data)

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the voxels and the metadata that MONAI requires.

        Raises:
            DataError: if the file is missing, damaged, or not a scan.
        """
        array, affine = read_voxels(img, self.nan)
        metadata = {
            "affine": affine,
            "original_affine": affine.copy(),
            "spatial_shape": array.shape[1:],
            "original_channel_dim": 0,
            "filename_or_obj": str(img),
        }
        return array, metadata


logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)


def _loader(nan: NaNPolicy) -> LoadImage:
    with warnings.catch_warnings():  # MONAI tries its own readers too, which say what they lack
        warnings.simplefilter("ignore")
        return LoadImage(reader=ScanReader(nan), image_only=True, dtype=None)


_LOADERS: dict[NaNPolicy, LoadImage] = {"refuse": _loader("refuse"), "fill": _loader("fill")}


def load(path: Path, nan: NaNPolicy = "refuse") -> MetaTensor:
    """Read a file, or a folder with one DICOM series, as a volume of shape `(c, x, y, z)`.

    Args:
        path: the path of the file or folder.
        nan: what becomes of voxels that are NaN or infinite.

    Raises:
        DataError: if it cannot be read.
    """
    volume = _LOADERS[nan](path)
    assert isinstance(volume, MetaTensor)
    return volume
