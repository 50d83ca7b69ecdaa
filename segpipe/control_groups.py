"""The control groups of this process, by which Linux limits what containers and jobs take."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ControlGroup:
    """A control group that has a controller.

    Attributes:
        folder: the folder with its files, which need not be shown to this process.
        is_version_2: whether its files have the names of version 2.
    """

    folder: Path
    is_version_2: bool


def own_groups(controller: str) -> Iterator[ControlGroup]:
    """Yield the groups of this process and those around them; none where this is not Linux.

    Args:
        controller: what they limit, as `memory` or `cpu`.
    """
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        inside = name.strip("/")
        if not controllers:
            yield from _with_those_around(GROUPS / inside, is_version_2=True)
        elif controller in controllers.split(","):
            # a container may see its own group as the topmost one, whatever its name outside
            yield from _with_those_around(GROUPS / controller / inside, is_version_2=False)


def _with_those_around(folder: Path, is_version_2: bool) -> Iterator[ControlGroup]:
    for group in (folder, *folder.parents):
        yield ControlGroup(group, is_version_2)
        if group == GROUPS:
            return
