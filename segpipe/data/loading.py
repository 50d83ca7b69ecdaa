"""MONAI's door to scans: training loads its volumes through `LoadImage`, with segpipe's strict reading behind it.

Prediction reads by the same functions without it, since MONAI takes longer to import than a small scan to segment.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import LoadImage

from segpipe.io.volumes import is_scan, read_voxels


class ScanReader(ImageReader):
    """Reads all that segpipe knows into arrays of shape `(c, x, y, z)`, strictly."""

    def verify_suffix(self, filename: Any) -> bool:
        """Whether the file's ending is one that this reader knows."""
        return is_scan(Path(filename))

    def read(self, data: Any, **_: Any) -> Path:
        """The path itself: opening is left to `get_data`, where errors can name the file."""
        return Path(data[0] if isinstance(data, Sequence) and not isinstance(data, str) else data)

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """The voxels and the metadata that MONAI wants.

        Raises:
            DataError: if the file is missing, damaged, or not a scan.
        """
        array, affine = read_voxels(img)
        meta = {
            "affine": affine,
            "original_affine": affine.copy(),
            "spatial_shape": array.shape[1:],
        }
        return array, meta | {"original_channel_dim": 0, "filename_or_obj": str(img)}


_loader = LoadImage(reader=ScanReader(), image_only=True, dtype=None)


def load(path: Path) -> MetaTensor:
    """A file, or a folder of one DICOM series, as a volume of shape `(c, x, y, z)`.

    Raises:
        DataError: if it cannot be read.
    """
    volume = _loader(path)
    assert isinstance(volume, MetaTensor)
    return volume
