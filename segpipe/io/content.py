"""Which files the voxels of a scan come from, and whether they can be read at all."""

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.errors import DataError
from segpipe.io.formats import format_of
from segpipe.io.values import count_invalid


def content_files(paths: Sequence[Path]) -> list[Path]:
    """Return all files that the voxels of these scans or label maps come from.

    Raises:
        DataError: if one is no regular file, since reading it might never end, or cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        check_regular(path)
        format_ = format_of(path)
        files = [path] if format_ is None else format_.files(path)
        for file in files:
            check_regular(file)
        found += files
    return found


def voxel_digest(voxels: np.ndarray) -> str:
    """Return a digest of voxels and their shape, whatever file they came from."""
    digest = hashlib.sha256(repr(voxels.shape).encode())
    digest.update(np.ascontiguousarray(voxels).data.cast("B") if voxels.size else b"")
    return digest.hexdigest()


def has_invalid(path: Path) -> bool:
    """Return whether voxels of a file are NaN or infinite.

    Raises:
        DataError: if it cannot be read.
    """
    format_ = format_of(path)
    assert format_ is not None
    return count_invalid(format_.read(path)[0]) > 0


def check_regular(path: Path) -> None:
    """Check that a path is a file or a folder, which can be read to an end.

    Raises:
        DataError: if it is missing, a link that leads nowhere, a pipe or a device.
    """
    problem = irregular(path)
    if problem:
        raise DataError(problem)
    if not path.exists():
        raise DataError(f"{path}: no such file")


def irregular(path: Path) -> str:
    """Return why a path is neither a file nor a folder; an empty string where it is."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{path}: is a link to a file that does not exist" if path.is_symlink() else ""
    except OSError as error:
        return f"{path}: cannot be opened ({error.strerror})"
    is_usual = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return "" if is_usual else f"{path}: is not a regular file, but a pipe, socket or device"
