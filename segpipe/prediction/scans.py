"""Find the scans that `input=` means, and name their masks."""

import glob
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.data.tables import read_inputs
from segpipe.errors import ConfigError
from segpipe.io.dicom import is_series
from segpipe.io.formats import ENDINGS, ending_of, format_of, is_image
from segpipe.text import clipped, closest, unwritable, visible

CHANNEL = re.compile(r"_(\d{4})$")
TABLES = (".csv", ".tsv", ".json")
NamedFiles = list[tuple[str, tuple[Path, ...]]]  # a mask's name, and the files that it is made of


@dataclass(frozen=True)
class Scan:
    """A scan to segment.

    Attributes:
        name: of its mask, without suffix; with the folders between, where the input's are mirrored.
        images: one file, or one per channel in their order.
    """

    name: str
    images: tuple[Path, ...]

    @property
    def mask_name(self) -> str:
        """Return the mask's file name: NIfTI for a volume, PNG for an image."""
        return self.name + (".png" if is_image(self.images[0]) else ".nii.gz")


def find_scans(given: str, output: Path, channels: int, recursive: bool = False) -> list[Scan]:
    """Return the scans that `input=` means, sorted by name.

    It is a file, a folder, a glob, a list (`.txt`) or a table (`.csv`, `.tsv`, `.json`). Files that
    end in `_0000`, `_0001` ... are the channels of one scan, as nnU-Net names them. A folder that
    holds DICOM files is one scan. Folders inside the input are mirrored in the output.

    Args:
        given: what the user typed.
        output: folder for the masks.
        channels: files that a scan has where it has one for each channel.
        recursive: whether folders inside a folder are searched too.

    Raises:
        ConfigError: if there is none, or if two masks would have one name, lie outside `output` or
            replace a scan.
    """
    path = Path(given)
    if path.is_file() and given.endswith(TABLES):
        named = list(read_inputs(path))
    elif path.is_file() and path.suffix == ".txt":
        named = _read_list(path)
    else:
        named = _search(given, output, recursive)
    groups: dict[str, list[tuple[Path, ...]]] = {}
    for name, images in named:
        groups.setdefault(name, []).append(images)
    scans = []
    for name in sorted(groups):
        scan = Scan(name, _channels(name, groups[name], channels))
        _check_mask(scan, output)
        scans.append(scan)
    return scans


def _channels(name: str, entries: Sequence[tuple[Path, ...]], channels: int) -> tuple[Path, ...]:
    """Return the files of a scan in the order of its channels.

    Raises:
        ConfigError: if files of one name are not the channels of one scan.
    """
    if len(entries) == 1:
        return entries[0]
    paths = list(itertools.chain(*entries))
    if len(paths) != channels or not all(map(_has_channel_number, paths)):
        raise ConfigError(
            f"input: {', '.join(map(str, paths[:3]))} would all be written as {name}; rename them, "
            f"or give one folder at a time (the network takes {channels} channels a scan)"
        )
    return tuple(sorted(paths))


def _has_channel_number(path: Path) -> bool:
    """Return whether a file's name ends in `_0000`, `_0001` ..."""
    return CHANNEL.search(path.name[: -len(ending_of(path))]) is not None


def _check_mask(scan: Scan, output: Path) -> None:
    """Check that a mask lies inside the output, and does not replace its scan.

    Raises:
        ConfigError: otherwise.
    """
    if unwritable(scan.name):
        shown = clipped(visible(scan.name))
        raise ConfigError(f"input: the name {shown} {unwritable(scan.name)}; give it another")
    mask = (output / scan.mask_name).resolve()
    if not mask.is_relative_to(output.resolve()):
        raise ConfigError(
            f"input: the mask {scan.mask_name} would leave output={output}; give it another name"
        )
    if mask in [image.resolve() for image in scan.images]:
        raise ConfigError(
            f"output={output}: {scan.mask_name} would replace the scan itself; "
            "choose another folder"
        )


def _read_list(path: Path) -> NamedFiles:
    """Return the files that a text file lists, one a line, each relative to the list's folder."""
    named: NamedFiles = []
    for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()):
        if line and not line.startswith("#"):
            file = path.parent / line
            named.append((_mask_stem(Path(file.name)), (file,)))
    return named


def _search(given: str, output: Path, recursive: bool) -> NamedFiles:
    """Return the scans of a file, a folder or a glob.

    Raises:
        ConfigError: if there is none.
    """
    path = Path(given)
    if path.is_file() or is_series(path):
        root = path.parent
        found = [path]
    elif path.is_dir():
        root = path
        found = sorted(path.rglob("*") if recursive else path.iterdir())
    else:
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = sorted(map(Path, glob.glob(given, recursive=True)))
    # masks that an earlier call wrote into a folder of the input are no scans
    output_inside = root.resolve() in output.resolve().parents
    named: NamedFiles = []
    for file in found:
        if output_inside and output.resolve() in file.resolve().parents:
            continue
        if (ending_of(file) or is_series(file)) and not file.name.startswith("."):
            named.append((_mask_stem(file.relative_to(root)), (file,)))
    if not named:
        raise ConfigError(
            f"input={given}: {_why_nothing(path, found)} "
            f"(endings: {', '.join(ENDINGS)}; DICOM: folders)"
        )
    return named


def _mask_stem(file: Path) -> str:
    """Return a path without suffix and number of channel."""
    stem = file.as_posix()
    ending = ending_of(file)
    if ending:
        stem = stem[: -len(ending)]
    return CHANNEL.sub("", stem)


def _why_nothing(path: Path, found: Sequence[Path]) -> str:
    """Return why no scan was found, and the names that are similar to what was typed."""
    if found:
        return f"none of the {len(found)} files there is a scan, such as {found[0].name}"
    folder = next(parent for parent in (path, *path.parents, Path(".")) if parent.is_dir())
    names = [entry.name for entry in folder.iterdir()]
    similar = closest(path.name, names, 0.3)
    if similar:
        return f"no file matches; the closest in {folder} are {', '.join(similar)}"
    return "no file matches"


def find_truth(scan: Scan, folder: Path) -> Path:
    """Return the scan's label map in a folder of them.

    Raises:
        ConfigError: if it is not there.
    """
    for path in sorted(folder.glob(f"{scan.name}.*")):
        if path.is_file() and format_of(path) is not None:
            return path
    raise ConfigError(
        f"truth={folder}: holds no label map for {scan.name}; it must have the scan's name"
    )
