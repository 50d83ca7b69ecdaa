"""What was once computed of a case, kept on disk for all runs: arrays that are memory-mapped, so a patch costs a patch.

An entry is a folder of NumPy's `.npy` files, named after the content of the files that it came from, the settings and
the version of the code that made it. It appears whole or not at all: two runs may make it at once, or one be killed.
"""

import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segpipe.errors import DataError
from segpipe.files import digest

VERSION = 2  # raised whenever the same files and settings would give other arrays
ABANDONED_SECONDS = 24 * 3600  # a half-made entry older than this was left by a run that was killed
MAPPED_BYTES = 2**16  # smaller files are read: mapping them costs more


def entry(folder: Path, files: Sequence[Path], *settings: object) -> Path:
    """Where in the cache `folder` lies what these settings, plain values, make of these files' content.

    Raises:
        DataError: if a file cannot be read.
    """
    return folder / digest(files, VERSION, *settings)


def keep(place: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an entry, unless another run was faster.

    Raises:
        DataError: if it cannot be written.
    """
    building = place.parent / f".part-{uuid.uuid4().hex}"
    try:
        building.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(building / f"{name}.npy", array)
        os.rename(building, place)
    except OSError as error:
        if not place.is_dir():
            raise DataError(
                f"{place.parent}: {error.strerror}; make room, or name another folder by data.cache"
            ) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def kept(place: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an entry; None where there is none, or where a failing disk has left it damaged."""
    if not place.is_dir():
        return None
    try:
        return {
            # "c" lets torch take the array as it is, and never writes to the file
            file.stem: np.load(file, mmap_mode="c" if file.stat().st_size > MAPPED_BYTES else None)
            for file in sorted(place.glob("*.npy"))
        }
    except (OSError, ValueError, EOFError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def tidy(folder: Path) -> None:
    """Takes away half-made entries of runs that were killed."""
    for part in folder.glob(".part-*"):
        if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(part, ignore_errors=True)
