"""The memory of this machine, or of the container that this process runs in.

A container sees the memory of the whole machine in `/proc/meminfo`, and is killed where it takes
more than its control group allows (cgroup v1 and v2).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segpipe.control_groups import own_groups

MEMORY_INFO = Path("/proc/meminfo")
# names of the files with the limit, what is in use, and what of that can be taken back at once
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


@dataclass(frozen=True)
class Limit:
    """What a control group allows.

    Attributes:
        bytes: the most that its processes may take together.
        used: the bytes that they have taken, without caches of files.
    """

    bytes: int
    used: int


def total_bytes() -> int:
    """Return the bytes of memory that there are, whoever uses them."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *(limit.bytes for limit in _limits())])


def available_bytes() -> int:
    """Return the bytes of memory that this process can still take without swapping."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if MEMORY_INFO.is_file():
        for line in MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *(max(limit.bytes - limit.used, 0) for limit in _limits())])


def _limits() -> Iterator[Limit]:
    """Yield the limits of the control groups that this process is in."""
    for group in own_groups("memory"):
        limit = _read_limit(group.folder, VERSION_2 if group.is_version_2 else VERSION_1)
        if limit is not None:
            yield limit


def _read_limit(group: Path, names: tuple[str, str, str]) -> Limit | None:
    """Return the limit of a group; None where it has none, or is not shown to this process."""
    try:
        allowed = int((group / names[0]).read_text())
        used = int((group / names[1]).read_text())
        for line in (group / "memory.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            used -= int(value) if key == names[2] else 0
    except (OSError, ValueError):  # `max` is no number: there is no limit
        return None
    return Limit(allowed, max(used, 0))
