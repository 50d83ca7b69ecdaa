"""Files of remote folders on this machine, as many as a limit allows."""

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from segpipe.bounded_cache import GIB, Usage, make_room
from segpipe.files import digest, part_name
from segpipe.remote import RemoteFile, RemoteFolder

STEP = 1 / 20  # of the limit, after which the size is measured again


class DownloadCache:
    """Copies of remote files, in a folder of their own for each scan's channel.

    Args:
        folder: the folder of the cache, which other processes may use too.
        limit_gib: most that they may take, in GiB; a larger file is copied all the same.

    Raises:
        DataError: if the folder cannot be written to.
    """

    def __init__(self, folder: Path, limit_gib: float) -> None:
        self.folder = folder
        self.limit_gib = limit_gib
        self._usage = Usage(folder)
        self._allowance = 0  # bytes that may come before room is made again

    def fetch(self, remote: RemoteFolder, files: Sequence[RemoteFile]) -> Path:
        """Return a folder with copies of files, which stays until `release`.

        Raises:
            RemoteError: if one does not arrive.
            DataError: if there is none, or the server refuses.
            OSError: if the disk is full.
        """
        key = _key(remote, files)
        entry = self.folder / key
        self._usage.add([key])
        if not _is_whole(entry, files):
            shutil.rmtree(entry, ignore_errors=True)
            self._make_room(sum(file.size or 0 for file in files))
            self._copy(remote, files, entry)
        return entry

    def release(self, entries: Sequence[Path]) -> None:
        """Let the limit apply to what `fetch` returned."""
        self._usage.remove([entry.name for entry in entries])

    def close(self) -> None:
        """Let the limit apply to all."""
        self._usage.end()

    def _copy(self, remote: RemoteFolder, files: Sequence[RemoteFile], entry: Path) -> None:
        part = entry.with_name(part_name(entry.name))
        part.mkdir(parents=True)
        try:
            for file in files:
                remote.fetch(file, part / _local_name(file))
            os.rename(part, entry)
        except OSError:
            if not _is_whole(entry, files):  # else another process was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        """Make room for a file, and for some that come after it: measuring takes time."""
        if size > self._allowance:
            self._allowance = max(size, int(self.limit_gib * GIB * STEP))
            make_room(self.folder, self.limit_gib, self._allowance)
        self._allowance -= size


def _key(remote: RemoteFolder, files: Sequence[RemoteFile]) -> str:
    """Return the name of the entry for these versions of files."""
    versions: list[object] = [[file.name, file.size, file.version] for file in files]
    if not all(file.version for file in files):  # another content would not be noticed
        versions.append(uuid.uuid4().hex)
    return digest([], remote.address, versions)


def _local_name(file: RemoteFile) -> str:
    return PurePosixPath(file.name).name


def _is_whole(entry: Path, files: Sequence[RemoteFile]) -> bool:
    """Return whether all files are there in their size."""
    for file in files:
        copy = entry / _local_name(file)
        if not copy.is_file() or file.size not in (None, copy.stat().st_size):
            return False
    return True
