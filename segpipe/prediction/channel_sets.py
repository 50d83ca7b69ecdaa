"""Files that are the channels of one scan, told apart from scans with numbers in their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.io.volumes import mask_ending

CHANNEL = re.compile(r"_(\d{4})$")
Numbered = dict[int, list["Found"]]  # number of the channel -> files


@dataclass(frozen=True)
class Found:
    """A file or a folder that holds a scan.

    Attributes:
        path: its path.
        stem: its name below the input, without the ending.
        is_file: whether the end of its name may be the number of a channel; never of a folder.
    """

    path: Path
    stem: str
    is_file: bool = True


@dataclass(frozen=True)
class Scan:
    """A scan to segment.

    Attributes:
        name: the name of its mask, without suffix; with the folders between, where the input's are
            mirrored.
        images: one file, or one per channel in their order.
        problem: the reason why it cannot be segmented; empty where it can be tried.
        hint: what may help where it has other channels than the network.
        truth: its label map, where a table names it.
    """

    name: str
    images: tuple[Path, ...]
    problem: str = ""
    hint: str = ""
    truth: Path | None = None

    @property
    def mask_name(self) -> str:
        """Return the mask's file name: NIfTI for a volume, PNG or TIFF for an image."""
        return self.name + mask_ending(self.images[0])


def as_scans(found: Sequence[Found], channels: int) -> list[Scan]:
    """Return the scans that files are; several may have one name.

    Files are the channels of one scan where their names end in exactly `_0000` ... `_000(n-1)`.
    Every other file is a scan of its own, and has its name but for a `_0000` at the end.

    Args:
        found: the files, and folders, in any order.
        channels: the channels of the network, n.
    """
    scans: list[Scan] = []
    sets: dict[str, Numbered] = {}
    for item in found:
        number = CHANNEL.search(item.stem) if item.is_file else None
        if number and channels > 1:
            base = item.stem[: number.start()]
            sets.setdefault(base, {}).setdefault(int(number[1]), []).append(item)
        else:
            scans.append(_alone(item))
    for base, numbered in sets.items():
        scans += _scans_of_set(base, numbered, channels)
    return scans


def _alone(item: Found, hint: str = "") -> Scan:
    name = item.stem.removesuffix("_0000") if item.is_file else item.stem
    return Scan(name, (item.path,), hint=hint)


def _scans_of_set(base: str, numbered: Numbered, channels: int) -> list[Scan]:
    """Return the scan that numbered files of one name are, or the scans that they are each.

    Without a `_0000` they are numbered patients. With it they are the channels of one scan, which
    are refused where there are too few or too many.
    """
    files: list[Found] = []
    for number in sorted(numbered):
        files += numbered[number]
    paths = tuple(item.path for item in files)
    expected = ", ".join(f"_{number:04d}" for number in range(channels))
    if len(files) == channels and sorted(numbered) == list(range(channels)):
        return [Scan(base, paths)]
    if 0 in numbered and len(files) > 1:
        names = ", ".join(path.name for path in paths[:6]) + (" ..." if paths[6:] else "")
        problem = (
            f"{base}: {names} are not the {channels} channels {expected} that the network takes; "
            "name the files of each scan in a table (input=scans.csv) if they are others"
        )
        return [Scan(base, paths, problem)]
    hint = f"; the {channels} channels of a scan, in a file each, end in {expected}"
    return [_alone(item, hint) for item in files]
