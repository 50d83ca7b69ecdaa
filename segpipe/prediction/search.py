"""Look for scans in a file, a folder or a glob, and name what is passed over."""

import glob
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from segpipe.errors import NoScanError
from segpipe.io.dicom import files as dicom_files
from segpipe.io.dicom import is_series, volumes_in
from segpipe.io.dicom_file import is_dicom
from segpipe.io.formats import DICOM, ENDINGS, ending_of, format_of, header_of
from segpipe.prediction.channel_sets import Found
from segpipe.text import closest, count

log = logging.getLogger("segpipe")
SHOWN = 8  # files that a line names at most


def search(given: str, output: Path, recursive: bool, quiet: bool = False) -> list[Found]:
    """Return the files and folders that hold the scans of an input, sorted by name.

    Args:
        given: a file, a folder, or a glob.
        output: what lies in it are masks of an earlier call.
        recursive: whether folders inside a folder are searched too.
        quiet: whether nothing is said of what is passed over.

    Raises:
        NoScanError: if there is none.
    """
    search = Search(output, recursive)
    if os.path.isdir(given):
        search.add_folder(Path(given), Path(given))
    elif os.path.lexists(given):
        search.add_file(Path(given), Path(given).parent, typed=True)
    else:
        root = _root(given)
        pattern = os.path.join(glob.escape(str(root)), Path(given).relative_to(root))
        search.add_matches(root, map(Path, sorted(glob.glob(pattern, recursive=True))))
    if not search.found:
        raise NoScanError(f"input={given}: {_why_nothing(given, search)}")
    if search.passed_over and not quiet:
        log.info("input: passed over %s", _listed(search.passed_over))
    return search.found


class Search:
    """What is found while folders are walked through.

    Attributes:
        found: files and folders that hold a scan.
        passed_over: names of the others, some with the reason.
        unsearched: folders inside a folder, where `recursive` is false.
    """

    def __init__(self, output: Path, recursive: bool) -> None:
        self.output = os.path.realpath(output)
        self.recursive = recursive
        self.found: list[Found] = []
        self.passed_over: list[str] = []
        self.unsearched: list[Path] = []
        self.visited: set[str] = set()
        self.headers: set[Path] = set()

    def add_folder(self, folder: Path, root: Path) -> None:
        """Add the scans of a folder; of a folder of DICOM files these, and files of other formats.

        Args:
            folder: the folder to look into.
            root: the folder that names are relative to.
        """
        real = os.path.realpath(folder)
        if real in self.visited:  # a link that leads back
            return
        self.visited.add(real)
        has_dicom = self._add_series(folder, root)
        for path in self._entries(folder):
            if os.path.isdir(path):
                self._add_inner(path, root)
            elif not has_dicom or format_of(path) not in (None, DICOM):
                self.add_file(path, root)

    def add_file(self, path: Path, root: Path, typed: bool = False) -> None:
        """Add a file if it is a scan by its name, or was typed and is one by its content.

        The header of a pair stands for both of its files.
        """
        header = header_of(path)
        if header != path and os.path.isfile(header):
            if header not in self.headers:
                self.add_file(header, root)
            return
        self.headers.add(path)
        if path.name.startswith(".") and not typed:
            self.passed_over.append(path.name)
        elif ending_of(path) or (typed and format_of(path) is not None):
            name = path.relative_to(root).as_posix()
            is_file = format_of(path) is not DICOM
            self.found.append(Found(path, name[: len(name) - len(ending_of(path))], is_file))
        else:
            self.passed_over.append(path.name)

    def add_matches(self, root: Path, paths: Iterable[Path]) -> None:
        """Add what a glob matches, folders of DICOM files among it."""
        slices: list[Path] = []
        for path in paths:
            if self._is_output(path):
                continue
            if os.path.isdir(path):
                if not self._add_series(path, root) and path != root:
                    self.unsearched.append(path)
            elif is_dicom(path):
                slices.append(path)
            else:
                self.add_file(path, root)
        self._add_dicom_files(slices, root)

    def _add_inner(self, folder: Path, root: Path) -> None:
        """Search a folder inside another, or note that it is not searched."""
        if self._is_output(folder):
            return
        if folder.name.startswith("."):
            self.passed_over.append(f"{folder.name}/")
        elif self.recursive:
            self.add_folder(folder, root)
        elif not self._add_series(folder, root):
            self.unsearched.append(folder)
            self.passed_over.append(f"{folder.name}/ (recursive=true searches it)")

    def _add_series(self, folder: Path, root: Path) -> bool:
        """Add the volumes of a folder's DICOM files, if it has any."""
        if not is_series(folder):
            return False
        name = folder.relative_to(root).as_posix()
        if name == ".":
            name = os.path.basename(os.path.realpath(folder))
        volumes, passed_over = volumes_in(folder)
        self.passed_over += passed_over
        if len(volumes) < 2:  # of a folder without any volume, reading says why
            self.found.append(Found(folder, name, is_file=False))
            return True
        for volume in volumes:
            mask_name = f"{name}_{volume.name}"
            if volume.is_one_file:  # such as each radiograph of a folder of them
                mask_name = (folder.relative_to(root) / volume.name).as_posix()
            self.found.append(Found(volume.path, mask_name, is_file=False))
        return True

    def _add_dicom_files(self, files: Sequence[Path], root: Path) -> None:
        """Add the volumes that DICOM files are slices of, each once."""
        for folder in dict.fromkeys(file.parent for file in files):
            before = len(self.found)
            self._add_series(folder, root)
            named = set(files)
            for item in self.found[before:]:
                if item.path != folder and not named.intersection(dicom_files(item.path)):
                    self.found.remove(item)

    def _entries(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            self.passed_over.append(f"{folder.name}/ ({error.strerror})")
            return []

    def _is_output(self, path: Path) -> bool:
        """Return whether a path lies in the output, or is it."""
        real = os.path.realpath(path)
        return real == self.output or real.startswith(self.output + os.sep)


def _root(given: str) -> Path:
    """Return the longest beginning of a glob that is a folder; its name may hold brackets."""
    for parent in Path(given).parents:
        if os.path.isdir(parent):
            return parent
    return Path(".")


def _why_nothing(given: str, search: Search) -> str:
    """Return why no scan was found, and what to type instead."""
    if search.unsearched:
        deeper = Search(Path(search.output), recursive=True)
        for folder in search.unsearched:
            deeper.add_folder(folder, folder)
        if deeper.found:
            inside = count(len(deeper.found), "scan")
            return f"the folders inside it hold {inside}; add recursive=true to search them too"
    endings = f"(endings: {', '.join(ENDINGS)}; DICOM: folders)"
    if os.path.lexists(given) and not os.path.isdir(given):
        return f"is no scan {endings}"
    if search.passed_over or search.unsearched:
        others = search.passed_over or [f"{folder.name}/" for folder in search.unsearched]
        return f"none of the {_listed(others, ' there is a scan')} {endings}"
    if os.path.isdir(given):
        return f"is empty {endings}"
    folder = _root(given)
    similar = closest(Path(given).name, _names(folder), 0.3)
    if similar:
        return f"no file matches; the closest in {folder} are {', '.join(similar)} {endings}"
    return f"no file matches {endings}"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(filter(str.isprintable, os.listdir(folder)))
    except OSError:
        return []


def _listed(names: list[str], said: str = "") -> str:
    """Return a number of files, what is said of them, and the first of their names."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:SHOWN]]
    more = " ..." if names[SHOWN:] else ""
    return f"{count(len(names), 'file')}{said}: {', '.join(shown)}{more}"
