"""Arrays computed once per case and cached on disk for all runs.

An entry is a folder of NumPy's `.npy` files, named after the content of the files that it was made
of, the settings, and the version of the code that made it. The files are memory-mapped, so that
cutting a patch reads a patch. An entry is complete or absent: two runs may write the same one at
once, and a run may be killed while it writes.
A disk may damage one: a run compares checksums before it trains.
"""

import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segpipe.bounded_cache import touch
from segpipe.errors import DataError
from segpipe.files import PART, digest
from segpipe.io.content import content_files

VERSION = 3  # raised whenever the same files and settings would give other arrays
ABANDONED_SECONDS = 24 * 3600  # an unfinished entry older than this was left by a killed run
CHECKSUMS = "checksums.json"  # of an entry's files; one without was made by an older version
BLOCK = 2**20  # bytes that are read at once
MAPPED_BYTES = 2**16  # smaller files are read, since mapping them costs more


def entry_path(folder: Path, files: Sequence[Path], *settings: object) -> Path:
    """Return the path of the entry for these files' content and these plain values.

    Args:
        folder: the folder of the cache.
        files: scans and label maps; all files that their voxels come from count.
        settings: values that JSON can hold.

    Raises:
        DataError: if a file cannot be read.
    """
    return folder / digest(content_files(files), VERSION, *settings)


def write_entry(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an entry, unless another run was faster.

    Raises:
        DataError: if it cannot be written.
    """
    unfinished = path.parent / f"{PART}{uuid.uuid4().hex}"
    try:
        unfinished.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(unfinished / f"{name}.npy", array)
        sums = json.dumps(_checksums(unfinished))
        (unfinished / CHECKSUMS).write_text(sums)
        os.rename(unfinished, path)
    except OSError as error:
        if not path.is_dir():
            raise DataError(
                f"{path.parent}: {error.strerror}; make room, or name another folder by data.cache"
            ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_entry(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of an entry by name; None if there is none, or a failing disk damaged it.

    A damaged entry is removed, so that it can be written again.
    """
    if not path.is_dir():
        return None
    arrays: dict[str, np.ndarray] = {}
    try:
        for file in sorted(path.glob("*.npy")):
            # "c" lets torch take the array as it is, and never writes to the file
            mode = "c" if file.stat().st_size > MAPPED_BYTES else None
            arrays[file.stem] = np.load(file, mmap_mode=mode)
    except (OSError, ValueError, EOFError):
        shutil.rmtree(path, ignore_errors=True)
        return None
    return arrays


def is_whole(path: Path) -> bool:
    """Return whether there is an entry that holds what was written; a damaged one is removed.

    It counts as used. All of it is read: a flipped bit would be trained on without a word.
    """
    if not path.is_dir():
        return False
    try:
        whole = json.loads((path / CHECKSUMS).read_bytes()) == _checksums(path)
    except (OSError, ValueError):
        whole = False
    if whole:
        touch(path)
    else:
        shutil.rmtree(path, ignore_errors=True)
    return whole


def _checksums(path: Path) -> dict[str, int]:
    """Return the checksum of each file of an entry."""
    sums = {}
    for file in sorted(path.glob("*.npy")):
        found = 0
        with file.open("rb") as content:
            while block := content.read(BLOCK):
                found = zlib.crc32(block, found)
        sums[file.name] = found
    return sums


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished entries of runs that were killed."""
    for unfinished in folder.glob(f"{PART}*"):
        try:
            age_s = time.time() - unfinished.stat().st_mtime
        except FileNotFoundError:  # another run has just finished it
            continue
        if age_s > ABANDONED_SECONDS:
            shutil.rmtree(unfinished, ignore_errors=True)
