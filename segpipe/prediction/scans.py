"""Which scans `input=` means, and what their masks are called."""

import difflib
import glob
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.data.tables import read_inputs
from segpipe.errors import ConfigError
from segpipe.io.itk import FOREIGN, is_series
from segpipe.io.volumes import IMAGES, VOLUMES

CHANNEL = re.compile(r"_(\d{4})$")
ENDINGS = VOLUMES + FOREIGN + IMAGES
TABLES = (".csv", ".tsv", ".json")


@dataclass(frozen=True)
class Scan:
    """A scan to segment.

    Attributes:
        name: of its mask, without an ending; with the folders between, where the input's are mirrored.
        images: one file, or one per channel in their order.
    """

    name: str
    images: tuple[Path, ...]

    @property
    def mask_name(self) -> str:
        """The mask's file name: NIfTI for a volume, PNG for an image."""
        return self.name + (".png" if _ending(self.images[0]) in IMAGES else ".nii.gz")


def find_scans(given: str, output: Path, channels: int, recursive: bool = False) -> list[Scan]:
    """The scans that a file, a folder, a glob, a list (`.txt`) or a table (`.csv`, `.tsv`, `.json`) means, by name.

    Files that end in `_0000`, `_0001` ... are the channels of one scan, as nnU-Net names them. A folder that holds
    DICOM files is one scan. Folders inside the input
    are mirrored in the output.

    Args:
        given: what the user typed.
        output: folder for the masks.
        channels: files that a scan has where it has one for each channel.
        recursive: also what lies in folders inside a folder.

    Raises:
        ConfigError: if there is none, if two masks would have one name, lie outside `output` or replace a scan.
    """
    named = (
        read_inputs(Path(given))
        if given.endswith(TABLES) and Path(given).is_file()
        else _named(given, output, recursive)
    )
    groups: dict[str, list[Path]] = {}
    for name, images in named:
        groups.setdefault(name, []).extend(images)
    scans = []
    for name, paths in sorted(groups.items()):
        suffixes = [CHANNEL.search(path.name[: -len(_ending(path))]) for path in paths]
        whole = [images for other, images in named if other == name] == [tuple(paths)]
        if len(paths) > 1 and not whole and not (all(suffixes) and len(paths) == channels):
            raise ConfigError(
                f"input: {', '.join(str(path) for path in paths[:3])} would all be written as {name}; "
                f"rename them, or give one folder at a time (the network takes {channels} channels a scan)"
            )
        scans.append(Scan(name, tuple(paths if whole else sorted(paths))))
    for scan in scans:
        target = (output / scan.mask_name).resolve()
        if not target.is_relative_to(output.resolve()):
            raise ConfigError(
                f"input: the mask {scan.mask_name} would leave output={output}; give it another name"
            )
        if any(image.resolve() == target for image in scan.images):
            raise ConfigError(
                f"output={output}: {scan.mask_name} would replace the scan itself; choose another folder"
            )
    return scans


def _named(given: str, output: Path, recursive: bool) -> list[tuple[str, tuple[Path, ...]]]:
    """Each file with the name of its mask: its path below the input, without ending and number of channel."""
    path = Path(given)
    if path.is_file() and path.suffix == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        files = [path.parent / line for line in lines if line and not line.startswith("#")]
        return [(_name(Path(file.name)), (file,)) for file in files]
    if path.is_file() or is_series(path):
        root, found = path.parent, [path]
    elif path.is_dir():
        root, found = path, sorted(path.rglob("*") if recursive else path.iterdir())
    else:
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
    inside = (
        root.resolve() in output.resolve().parents
    )  # what was written there by an earlier call is no input
    mine = [file for file in found if not (inside and output.resolve() in file.resolve().parents)]
    files = [
        file
        for file in mine
        if (_ending(file) or is_series(file)) and not file.name.startswith(".")
    ]
    if not files:
        raise ConfigError(
            f"input={given}: {_nothing(path, found)} (endings: {', '.join(ENDINGS)}; DICOM: folders)"
        )
    return [(_name(file.relative_to(root)), (file,)) for file in files]


def _name(file: Path) -> str:
    ending = _ending(file)
    return CHANNEL.sub("", file.as_posix()[: -len(ending)] if ending else file.as_posix())


def _nothing(path: Path, found: Sequence[Path]) -> str:
    if found:
        return f"none of the {len(found)} files there is a scan, such as {found[0].name}"
    folder = next(parent for parent in (path, *path.parents, Path(".")) if parent.is_dir())
    names = [entry.name for entry in folder.iterdir()]
    close = difflib.get_close_matches(path.name, names, 3, 0.3)
    return (
        f"no file matches; the closest in {folder} are {', '.join(close)}"
        if close
        else "no file matches"
    )


def _ending(path: Path) -> str:
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")


def find_truth(scan: Scan, folder: Path) -> Path:
    """The scan's label map in a folder of them.

    Raises:
        ConfigError: if it is not there.
    """
    found = [
        path
        for path in sorted(folder.glob(f"{scan.name}.*"))
        if path.name.lower().endswith(VOLUMES + IMAGES)
    ]
    if not found:
        raise ConfigError(
            f"truth={folder}: holds no label map for {scan.name}; it must have the scan's name"
        )
    return found[0]
