"""Find the scans that `input=` means, and name their masks."""

import itertools
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from zlib import crc32

from segpipe.data.tables import TABLES, file_named, read_inputs, read_text
from segpipe.errors import ConfigError, DataError
from segpipe.io.content import content_files, irregular
from segpipe.io.formats import stem
from segpipe.prediction.channel_sets import Found, Scan, as_scans
from segpipe.prediction.search import search
from segpipe.text import clipped, unwritable, visible


def find_scans(
    given: str,
    output: Path,
    channels: int,
    recursive: bool = False,
    columns: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> list[Scan]:
    """Return the scans that `input=` means, sorted by name.

    It is a file, a folder, a glob, a list (`.txt`) or a table (`.csv`, `.tsv`, `.json`). Files that
    end in exactly `_0000` ... `_000(n-1)` are the n channels of one scan, as nnU-Net names them. A
    folder that holds DICOM files is one scan. Folders inside the input are mirrored in the output.
    What cannot be segmented, such as a named pipe or two scans of one name, stays among them with
    its problem.

    Args:
        given: what the user typed.
        output: folder for the masks.
        channels: the channels of the network.
        recursive: whether folders inside a folder are searched too.
        columns: names that a table has for its columns.
        quiet: whether nothing is said of what is passed over.

    Raises:
        ConfigError: if there is none, if a mask would lie outside `output` or replace a scan, or if
            no scan has a name of its own.
    """
    by_name: dict[str, list[Scan]] = defaultdict(list)
    for scan in _named(given, output, channels, recursive, columns, quiet):
        by_name[scan.name].append(scan)
    scans = []
    for name in sorted(by_name):
        scan = _checked(_only(by_name[name]))
        if not scan.problem:
            _check_mask(scan, output)
        scans.append(scan)
    if all(len(same) > 1 for same in by_name.values()):
        raise ConfigError(f"input={given}: {scans[0].problem}")
    return scans


def in_shard(scans: Sequence[Scan], shard: str | None) -> list[Scan]:
    """Return the scans of a shard such as `2/5`; which one a scan is in depends on its name."""
    if shard is None:
        return list(scans)
    number, total = map(int, shard.split("/"))
    return [
        scan
        for scan in scans
        if crc32(scan.name.encode("utf-8", "surrogatepass")) % total == number - 1
    ]


def _named(
    given: str,
    output: Path,
    channels: int,
    recursive: bool,
    columns: Mapping[str, str] | None,
    quiet: bool,
) -> list[Scan]:
    """Return the scans of a table, a list, or a search.

    Raises:
        ConfigError: if there is none.
    """
    file = Path(given)
    suffix = file.suffix.lower()
    if not os.path.isfile(given) or suffix not in (*TABLES, ".txt"):
        return as_scans(search(given, output, recursive, quiet), channels)
    try:
        if suffix == ".txt":
            return as_scans(_read_list(file), channels)
        cases = read_inputs(file, columns)
    except DataError as error:
        raise ConfigError(f"input={given}: {error}") from None
    return [Scan(case.name, case.images, truth=case.label) for case in cases]


def _read_list(path: Path) -> list[Found]:
    """Return the files that a text file lists, one a line, each relative to the list's folder.

    Raises:
        DataError: if it lists none, or is no text file.
    """
    found = []
    for line in map(str.strip, read_text(path).splitlines()):
        if line and not line.startswith("#"):
            file = file_named(path.parent, line)
            is_folder = os.path.isdir(file)
            found.append(Found(file, file.name if is_folder else stem(file), not is_folder))
    if not found:
        raise DataError(f"{path}: lists no scan; it needs a file a line")
    return found


def _only(scans: Sequence[Scan]) -> Scan:
    """Return the scan of a name; of several one that says so, since only one mask can have it."""
    if len(scans) == 1:
        return scans[0]
    images = tuple(itertools.chain(*(scan.images for scan in scans)))
    problem = (
        f"{', '.join(map(str, images[:3]))} would all be written as {visible(scans[0].name)}; "
        "rename them, give one folder at a time, or name them by a column of a table "
        "(columns={case:COLUMN})"
    )
    return Scan(scans[0].name, images, problem)


def _checked(scan: Scan) -> Scan:
    """Return a scan with the problem that its name or its files have, if any."""
    fault = unwritable(scan.name)
    if fault:
        shown = clipped(visible(scan.name))
        return replace(scan, name=shown, problem=f"{shown}: its name {fault}; rename it")
    problem = scan.problem or next(filter(None, map(irregular, scan.images)), "")
    return replace(scan, problem=problem)


def readable_files(path: Path) -> list[Path]:
    """Return all files that a label map comes from; none where they cannot be told."""
    try:
        return content_files([path])
    except DataError:
        return []


def _check_mask(scan: Scan, output: Path) -> None:
    """Check that a mask lies inside the output, and does not replace its scan.

    Raises:
        ConfigError: otherwise.
    """
    folder = os.path.realpath(output)
    mask = os.path.realpath(output / scan.mask_name)
    if not mask.startswith(folder.rstrip(os.sep) + os.sep):
        raise ConfigError(
            f"input: the mask {scan.mask_name} would leave output={output}; give it another name"
        )
    if mask in map(os.path.realpath, scan.images):
        raise ConfigError(
            f"output={output}: {scan.mask_name} would replace the scan itself; "
            "choose another folder"
        )
