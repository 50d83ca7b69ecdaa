"""Label maps of every format on the grid of their scan."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from segpipe.geometry import Grid, Volume
from segpipe.io.dicom import read_segmentation
from segpipe.io.dicom_contours import read_structures
from segpipe.io.dicom_file import is_dicom, only_file
from segpipe.io.dicom_frames import open_header
from segpipe.io.dicom_segments import is_segmentation
from segpipe.io.dicom_tags import STRUCTURE_SET
from segpipe.io.volumes import load_label


def lies_on_scan(path: Path) -> bool:
    """Return whether a path is a DICOM segmentation or structure set: it has its scan's grid."""
    file = only_file(path)
    if not file.is_file() or not is_dicom(file):
        return False
    header = open_header(file)
    return header.kind == STRUCTURE_SET or is_segmentation(header)


def load_label_of(
    path: Path, grid: Grid, image: Path | None = None, labels: Mapping[str, int] | None = None
) -> Volume:
    """Read a label map as a volume `(1, x, y, z)`; one of DICOM on the scan's grid.

    Args:
        path: the path of the label map, or of a folder that holds nothing but its DICOM file.
        grid: the grid of its scan; only the segments and outlines of DICOM need it, other formats
            have their own.
        image: its scan's file; a label map in pixels takes the millimetres of an image of its size.
        labels: name -> id; where the segments or structures of a DICOM file have such names, these
            tell their ids, else their numbers do.

    Raises:
        DataError: if it cannot be read, or is no label map of this scan.
    """
    file = only_file(path)
    if not file.is_file() or not is_dicom(file):
        return load_label(path, image)
    header = open_header(file)
    if header.kind == STRUCTURE_SET:
        label = read_structures(file, grid.shape, grid.affine, labels)
    elif is_segmentation(header):
        label = read_segmentation(file, grid.shape, grid.affine, labels)
    else:
        return load_label(path, image)
    return Volume(torch.from_numpy(label[None]), np.asarray(grid.affine, dtype=float))
