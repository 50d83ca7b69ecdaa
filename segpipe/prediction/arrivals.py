"""Scans that arrive in a folder while it is watched."""

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from segpipe.errors import DataError, SegpipeError
from segpipe.io.content import content_files
from segpipe.prediction.channel_sets import Scan

log = logging.getLogger("segpipe")
Stamp = tuple[tuple[str, int, int], ...]  # name, bytes and time of change of each file of a scan


class Arrivals:
    """The scans of an input that are new or have changed since they were last taken.

    A file that is still written waits: all files of a scan must have been the same in two looks, or
    for as long as lies between them by their time.

    Args:
        find: returns all scans that are there.
        rest_s: seconds for which the files must have been the same at the first look.
    """

    def __init__(self, find: Callable[[], list[Scan]], rest_s: float) -> None:
        self.find = find
        self.rest_s = rest_s
        self.seen: dict[str, Stamp] = {}  # at the last look
        self.taken: dict[str, Stamp] = {}
        self.problem = ""  # that the last look met
        self.is_first = True

    def look(self) -> list[Scan]:
        """Return the scans to do now.

        Where the input cannot be read, as a network drive that is away, there are none, and a line
        says so.
        """
        try:
            scans = self.find()
        except (SegpipeError, OSError) as error:
            if str(error) != self.problem:
                log.warning("%s", error)
            self.problem = str(error)
            return []
        self.problem = ""
        stamps = {scan.name: stamp_of(scan) for scan in scans}
        ready = [scan for scan in scans if self._is_ready(scan.name, stamps[scan.name])]
        self.seen = stamps
        self.is_first = False
        self.taken = {name: stamp for name, stamp in self.taken.items() if name in stamps}
        for scan in ready:
            self.taken[scan.name] = stamps[scan.name]
        return ready

    def _is_ready(self, name: str, stamp: Stamp) -> bool:
        if self.taken.get(name) == stamp:
            return False
        if self.seen.get(name) == stamp:
            return True
        return self.is_first and _age_s(stamp) >= self.rest_s


def stamp_of(scan: Scan) -> Stamp:
    """Return what changes when a file of a scan is written, added or removed."""
    try:
        files: Iterable[Path] = content_files(scan.images)
    except DataError:  # such as a header that is not yet whole
        files = scan.images
    found: list[tuple[str, int, int]] = []
    for file in files:
        for path in _files_in(file):
            try:
                facts = os.stat(path)
            except OSError:  # it has just gone; the next look tells
                continue
            found.append((str(path), facts.st_size, facts.st_mtime_ns))
    return tuple(sorted(found))


def _files_in(path: Path) -> list[Path]:
    """Return the files directly in a folder; a file is the only one of itself."""
    if not os.path.isdir(path):
        return [path]
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _age_s(stamp: Stamp) -> float:
    """Return the seconds since the last change of a file, by the clock of this machine."""
    if not stamp:
        return 0.0
    return time.time() - max(changed for _, _, changed in stamp) / 1e9
