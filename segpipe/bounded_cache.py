"""A folder of entries that many processes fill: where it grows too large, the oldest are removed.

Each process says in a file, which it touches while it runs, which entries it uses. These stay,
whoever makes room. The age of an entry counts from its last use, the time of its folder.
"""

import atexit
import itertools
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from segpipe.files import is_digest, part_name, write_text
from segpipe.lock import own_facts, read_holder, showing_life
from segpipe.processes import HOST

log = logging.getLogger("segpipe")
USERS = ".users"
GIB = 2**30
_numbers = itertools.count()
_kept: "dict[Path, Usage]" = {}
_inherited: "list[Usage]" = []


@dataclass(frozen=True)
class Entry:
    """An entry of a cache.

    Attributes:
        path: its folder.
        used: the time of its last use, which is that of its folder.
        size: bytes of all files directly inside it.
    """

    path: Path
    used: float
    size: int


class Usage:
    """The entries of a cache that this process uses, from now until `end`.

    Args:
        folder: the folder of the cache, made if it is not there.

    Raises:
        DataError: if the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[str] = set()
        self._file = folder / USERS / f"{_own_beginning()}{next(_numbers)}.json"
        self._lock = threading.Lock()
        self._life = ExitStack()
        self._write()
        self._life.enter_context(showing_life(self._file))

    def add(self, names: Iterable[str]) -> None:
        """Keep entries, whether they are there already or not; they count as used now.

        Raises:
            DataError: if the folder cannot be written to.
        """
        added = {*names}
        with self._lock:
            self.names |= added
            self._write()
        for name in added:
            touch(self.folder / name)

    def remove(self, names: Iterable[str]) -> None:
        """Keep entries no longer.

        Raises:
            DataError: if the folder cannot be written to.
        """
        with self._lock:
            self.names -= {*names}
            self._write()

    def end(self) -> None:
        """Keep nothing any more; in a child of the process that began it, do nothing."""
        if self._file.name.startswith(_own_beginning()):
            self._life.close()
            self._file.unlink(missing_ok=True)  # its content has changed since it was made
        else:
            _inherited.append(self)  # collected, it would remove the file

    def _write(self) -> None:
        write_text(self._file, json.dumps(own_facts(entries=sorted(self.names))))


def keep(folder: Path, names: Iterable[str]) -> None:
    """Keep these entries of a cache until the process ends, in place of those that it kept before.

    Raises:
        DataError: if the folder cannot be written to.
    """
    before = _kept.pop(folder.absolute(), None)
    usage = Usage(folder)
    usage.add(names)
    _kept[folder.absolute()] = usage
    if before is not None:
        before.end()


@atexit.register
def _end_all() -> None:
    """Remove what says that this process uses entries; a process that is killed leaves it."""
    while _kept:
        _kept.popitem()[1].end()


def make_room(folder: Path, limit_gib: float, coming: int = 0) -> int:
    """Remove the entries that were not used for longest until the others are within a limit.

    Args:
        folder: the folder of the cache.
        limit_gib: the most that all entries may take together, in GiB.
        coming: bytes that are about to be written.

    Returns:
        The bytes by which the limit is exceeded still, since entries are in use.
    """
    entries = sorted(_entries(folder), key=lambda entry: entry.used)
    excess = sum(entry.size for entry in entries) + coming - int(limit_gib * GIB)
    removed = 0
    for entry in entries:
        if excess <= 0:
            break
        if entry.path.name not in _used(folder) and _removed(entry.path):
            excess -= entry.size
            removed += 1
    if removed:
        log.info("%s: removed %d of %d entries, to keep its limit", folder, removed, len(entries))
    return max(0, excess)


def _removed(entry: Path) -> bool:
    """Return whether an entry was removed; one that a process has begun to use is put back."""
    gone = entry.with_name(part_name(entry.name))
    try:
        os.rename(entry, gone)
    except OSError:  # another process was faster
        return False
    if entry.name in _used(entry.parent) and _put_back(gone, entry):
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _put_back(gone: Path, entry: Path) -> bool:
    """Return whether an entry has its name again; not where it was written anew meanwhile."""
    try:
        os.rename(gone, entry)
    except OSError:
        return False
    return True


def _used(folder: Path) -> set[str]:
    """Return the names of the entries that living processes use, this one included."""
    names: set[str] = set()
    for file in (folder / USERS).glob("*.json"):
        holder = read_holder(file)
        if holder is None:
            continue
        is_own = file.name.startswith(_own_beginning())
        entries = holder.facts.get("entries")
        if holder.is_gone and not is_own:
            file.unlink(missing_ok=True)
        elif isinstance(entries, list):
            names.update(map(str, entries))
    return names


def _entries(folder: Path) -> Iterator[Entry]:
    """Yield the finished entries of a cache; a folder of another name is somebody else's."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not is_digest(path.name) or not path.is_dir():
            continue
        try:
            size = sum(file.stat().st_size for file in path.iterdir())
            yield Entry(path, path.stat().st_mtime, size)
        except OSError:  # another process removes it
            continue


def touch(entry: Path) -> None:
    """Let an entry count as used now, if it is there."""
    try:
        os.utime(entry)
    except OSError:
        return


def _own_beginning() -> str:
    """Return how the names of the files begin by which this process says what it uses."""
    return f"{HOST}-{os.getpid()}-"
