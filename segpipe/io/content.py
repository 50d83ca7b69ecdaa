"""Which files the voxels of a scan come from, and whether they can be read at all."""

import os
from collections.abc import Sequence
from pathlib import Path

from segpipe.errors import DataError
from segpipe.io.dicom_seg import is_segmentation
from segpipe.io.formats import format_of


def content_files(paths: Sequence[Path]) -> list[Path]:
    """Return all files that the voxels of these scans or label maps come from.

    Raises:
        DataError: if one is no regular file, since reading it might never end, or cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        check_regular(path)
        format_ = format_of(path)
        files = [path]
        if format_ is not None and not is_segmentation(path):
            files = format_.files(path)
        for file in files:
            check_regular(file)
        found += files
    return found


def check_regular(path: Path) -> None:
    """Check that a path is a file or a folder, which can be read to an end.

    Raises:
        DataError: if it is missing, a link that leads nowhere, a pipe or a device.
    """
    if os.path.isfile(path) or os.path.isdir(path):
        return
    if not os.path.lexists(path):
        raise DataError(f"{path}: does not exist")
    if os.path.islink(path) and not os.path.exists(path):
        raise DataError(f"{path}: is a link that leads nowhere, or to itself")
    raise DataError(f"{path}: is a pipe or a device, not a file")
