"""Label maps of every format on the grid of their scan."""

from pathlib import Path

import numpy as np
import torch

from segpipe.geometry import Grid, Volume
from segpipe.io.dicom import holds_segmentation, read_segmentation
from segpipe.io.volumes import load_label


def load_label_of(path: Path, grid: Grid, image: Path | None = None) -> Volume:
    """Read a label map as a volume `(1, x, y, z)`; a DICOM segmentation on the scan's grid.

    Args:
        path: of the label map.
        grid: of its scan; only the segments of DICOM need it, other formats have their own.
        image: its scan's file; a label map in pixels takes the millimetres of an image of its size.

    Raises:
        DataError: if it cannot be read, or is no label map of this scan.
    """
    if not holds_segmentation(path):
        return load_label(path, image)
    label = read_segmentation(path, grid.shape, grid.affine)
    return Volume(torch.from_numpy(label[None]), np.asarray(grid.affine, dtype=float))
