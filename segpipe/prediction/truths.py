"""Find the label maps that masks are scored against."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segpipe.errors import ConfigError
from segpipe.io.formats import format_of, stem
from segpipe.prediction.channel_sets import Scan
from segpipe.text import count

NAMED = 5  # scans that a message names at most


def find_truths(scans: Sequence[Scan], folder: Path | None, output: Path) -> dict[str, Path]:
    """Return the label map of each scan, by its name: the table's, else the one in `truth=`.

    Args:
        scans: the scans to score.
        folder: the folder of label maps of any format with the scans' names, or that of a single
            scan; None where none is given.
        output: folder of the masks.

    Raises:
        ConfigError: if some have none in the folder, or a scan or a mask would be its own truth.
    """
    if folder is not None and len(scans) == 1 and os.path.isfile(folder):
        scans = [replace(scans[0], truth=folder)]
        folder = None
    label_maps = LabelMaps(folder)
    truths: dict[str, Path] = {}
    missing: list[str] = []
    for scan in scans:
        if scan.problem:  # there will be no mask
            continue
        truth = scan.truth or label_maps.of(scan)
        if truth is None:
            missing.append(scan.name)
        else:
            _check(truth, scan, output)
            truths[scan.name] = truth
    if missing and folder is not None:
        more = " ..." if missing[NAMED:] else ""
        raise ConfigError(
            f"truth={folder}: holds no label map for {count(len(missing), 'scan')} of "
            f"{len(scans)}: {', '.join(missing[:NAMED])}{more}; each must have its scan's name"
        )
    return truths


class LabelMaps:
    """The label maps in a folder, and in folders inside it, by name.

    Args:
        folder: their folder; None where there is none.

    Raises:
        ConfigError: if it is no folder.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is not None and not os.path.isdir(folder):
            raise ConfigError(
                f"truth={folder}: is not a folder of label maps with the scans' names, nor the "
                "label map of a single scan"
            )
        self.folder = folder
        self.listed: dict[Path, dict[str, Path]] = {}

    def of(self, scan: Scan) -> Path | None:
        """Return the label map of a scan; None where there is none."""
        if self.folder is None:
            return None
        names = [scan.name]
        if len(scan.images) == 1:  # a truth may be named `pat_0000` as the scan is
            names.append(str(Path(scan.name).with_name(stem(scan.images[0]))))
        for name in names:
            path = self.folder / name
            if path.parent not in self.listed:
                self.listed[path.parent] = _by_stem(path.parent)
            if path.name in self.listed[path.parent]:
                return self.listed[path.parent][path.name]
        return None


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are scans by their ending, and its folders, by name."""
    found: dict[str, Path] = {}
    if os.path.isdir(folder):
        for path in sorted(folder.iterdir()):
            if os.path.isdir(path):
                found.setdefault(path.name, path)
            elif format_of(path) is not None:
                found[stem(path)] = path
    return found


def _check(truth: Path, scan: Scan, output: Path) -> None:
    real = os.path.realpath(truth)
    if real in map(os.path.realpath, scan.images):
        raise ConfigError(
            f"truth: {truth} is the scan {scan.name} itself; name the folder of its label maps"
        )
    if real == os.path.realpath(output / scan.mask_name):
        raise ConfigError(
            f"truth: {truth} is where the mask of {scan.name} is written; choose another output"
        )
