"""Which scans `input=` means, and what their masks are called."""

import difflib
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.errors import ConfigError
from segpipe.volumes import IMAGES, VOLUMES

CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class Scan:
    """A scan to segment.

    Attributes:
        name: of its mask, without an ending.
        images: one file, or one per channel in their order.
    """

    name: str
    images: tuple[Path, ...]

    @property
    def mask_name(self) -> str:
        """The mask's file name: NIfTI for a volume, PNG for an image."""
        return self.name + (".png" if _ending(self.images[0]) in IMAGES else ".nii.gz")


def find_scans(pattern: str, output: Path, channels: int) -> list[Scan]:
    """The scans that a file, a folder or a glob means, sorted by name.

    Files that end in `_0000`, `_0001` ... are the channels of one scan, as nnU-Net names them.

    Raises:
        ConfigError: if there is none, if two masks would have one name, or a mask would replace a scan.
    """
    files = _files(pattern)
    groups: dict[str, list[Path]] = {}
    for file in files:
        stem = file.name[: -len(_ending(file))]
        groups.setdefault(CHANNEL.sub("", stem), []).append(file)
    scans = []
    for name, paths in sorted(groups.items()):
        suffixes = [CHANNEL.search(path.name[: -len(_ending(path))]) for path in paths]
        if len(paths) > 1 and not (all(suffixes) and len(paths) == channels):
            raise ConfigError(
                f"input: {', '.join(str(path) for path in paths[:3])} would all be written as {name}; "
                f"rename them, or give one folder at a time (the network takes {channels} channels a scan)"
            )
        scans.append(Scan(name, tuple(sorted(paths))))
    for scan in scans:
        target = (output / scan.mask_name).resolve()
        if any(image.resolve() == target for image in scan.images):
            raise ConfigError(f"output={output}: {scan.mask_name} would replace the scan itself; choose another folder")
    return scans


def _files(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        found: Sequence[Path] = [path]
    elif path.is_dir():
        found = sorted(path.iterdir())
    else:
        found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [file for file in found if _ending(file) and not file.name.startswith(".")]
    if files:
        return files
    raise ConfigError(f"input={pattern}: {_nothing(path, found)} (endings: {', '.join(VOLUMES + IMAGES)})")


def _nothing(path: Path, found: Sequence[Path]) -> str:
    if found:
        return f"none of the {len(found)} files there is a scan, such as {found[0].name}"
    folder = next(parent for parent in (path, *path.parents, Path(".")) if parent.is_dir())
    names = [entry.name for entry in folder.iterdir()]
    close = difflib.get_close_matches(path.name, names, 3, 0.3)
    return f"no file matches; the closest in {folder} are {', '.join(close)}" if close else "no file matches"


def _ending(path: Path) -> str:
    return next((ending for ending in VOLUMES + IMAGES if path.name.lower().endswith(ending)), "")
