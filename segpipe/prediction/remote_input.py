"""Scans of a remote folder: found by their names alone, and copied here when they are read."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from segpipe.data.tables import TABLES
from segpipe.download_cache import DownloadCache
from segpipe.errors import ConfigError, DataError
from segpipe.io.content import content_files
from segpipe.io.formats import DATA_ENDINGS, DICOM, ENDINGS, ending_of
from segpipe.prediction.channel_sets import Scan
from segpipe.remote import READ_ONLY, RemoteFile, RemoteFolder
from segpipe.text import name_fault

LISTS = (*TABLES, ".txt")
PAIRED = (*DATA_ENDINGS, ".hdr", ".mhd", ".nhdr")  # of which other files of that name are a part
DICOM_STUB = bytes(128) + b"DICM"  # by which a file is taken for DICOM


class RemoteInput:
    """The scans that an address means.

    An outline of the remote folder lies on this machine: its folders, and in place of each file one
    without content, in which scans are found as in any folder. Lists and tables are copied.

    Args:
        address: the address of a folder, a file, or files by a glob.
        folder: the folder for the outline.
        cache: the cache for the scans.
        recursive: whether the folders inside a folder are searched too.
        output: address of the masks, where they are remote; what lies there is no scan.

    Attributes:
        given: what stands for the address on this machine.

    Raises:
        ConfigError: if the address cannot be used, or there is nothing.
        DataError: if the server cannot be asked.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        cache: DownloadCache,
        recursive: bool,
        output: str = "",
    ) -> None:
        root, inside = _split(address)
        self.remote = RemoteFolder(root, "input")
        self.cache = cache
        self.origins: dict[str, str] = {}  # of copies on this machine that are in use
        self._held: dict[str, list[Path]] = {}  # by the scan's name
        if output == self.remote.address:
            raise ConfigError(f"output={output}: masks would replace scans; choose another folder")
        self._output = f"{output.removeprefix(self.remote.address)[1:]}/" if output else ""
        self.outline = folder / (PurePosixPath(root).name or "input")
        self.given = str(self.outline / inside)
        self.outline.mkdir(parents=True)
        self.files: dict[str, RemoteFile] = {}
        for file in self._listed(inside, recursive):
            self._outline(file)
        if not self.files:
            raise ConfigError(f"input={address}: there is no file")

    def shown(self, text: str) -> str:
        """Return a text with addresses in place of what stands for them on this machine."""
        for copy, origin in [*self.origins.items()]:
            text = text.replace(copy, origin)
        return text.replace(str(self.outline), self.remote.address)

    def check(self, scans: Sequence[Scan]) -> None:
        """Check that no label map is remote.

        Raises:
            ConfigError: otherwise.
        """
        for scan in scans:
            if scan.truth is not None and scan.truth.is_relative_to(self.outline):
                raise ConfigError(
                    f"input={self.given}: the label maps of a remote table are not read; give a "
                    "folder of this machine by truth="
                )

    def identity(self, scan: Scan) -> tuple[list[Path], list[Any]]:
        """Return what changes with the content of a scan: its versions, if the server tells them.

        Raises:
            DataError: if they cannot be had.
        """
        versions: list[Any] = []
        for image in scan.images:
            for file in self._parts(image):
                versions.append([file.name, file.size, file.version])
                if not file.version:
                    return content_files(self.opened(scan).images), []
        return [], [versions]

    def opened(self, scan: Scan) -> Scan:
        """Return a scan with copies of its files, which stay until `release`.

        Raises:
            DataError: if one cannot be had.
        """
        images: list[Path] = []
        for image in scan.images:
            parts = self._parts(image)
            if not parts:
                raise DataError(f"{image}: no such file")
            entry = self.cache.fetch(self.remote, parts)
            self._held.setdefault(scan.name, []).append(entry)
            self.origins[str(entry)] = self.shown(str(image if image.is_dir() else image.parent))
            images.append(entry if image.is_dir() else entry / image.name)
        return replace(scan, images=tuple(images))

    def release(self, name: str) -> None:
        """Let the cache remove the copies of a scan."""
        entries = self._held.pop(name, [])
        self.cache.release(entries)
        for entry in entries:
            self.origins.pop(str(entry), None)

    def _listed(self, inside: str, recursive: bool) -> Sequence[RemoteFile]:
        """Return the files among which the scans are."""
        is_single = inside and not _is_glob(inside)
        has_more = inside.lower().endswith((*PAIRED, *DICOM.endings, *LISTS))
        if is_single and not has_more:
            return [self.remote.file(inside)]
        if is_single and not inside.lower().endswith(LISTS):
            return list(self.remote.files(depth=1))
        depth = None if recursive or inside else 2  # a folder inside may be a DICOM series
        return list(self.remote.files(depth))

    def _outline(self, file: RemoteFile) -> None:
        """Let an empty file stand for a remote one, unless no file can have its name."""
        is_mask = self._output and file.name.startswith(self._output)
        if name_fault(file.name) or is_mask:
            return
        target = self.outline / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.name.lower().endswith(LISTS) and str(target) == self.given:
            self.remote.fetch(file, target)
        else:
            is_dicom = file.name.lower().endswith(DICOM.endings)
            target.write_bytes(DICOM_STUB if is_dicom else b"")
        self.files[file.name] = file

    def _parts(self, image: Path) -> list[RemoteFile]:
        """Return the files that belong to one image: itself, a DICOM folder, or a pair."""
        name = image.relative_to(self.outline).as_posix()
        names = [name]
        if image.is_dir():
            names = [f"{name}/{file}".removeprefix("./") for file in sorted(os.listdir(image))]
        elif name.lower().endswith(DICOM.endings):
            names = [found for found in self._beside(name) if found.endswith(DICOM.endings)]
        elif name.lower().endswith(PAIRED):
            stem = _stem(name)
            names = [found for found in self._beside(name) if _stem(found) == stem]
        return [self._known(name) for name in names if name in self.files]

    def _beside(self, name: str) -> list[str]:
        """Return the names of the files in the folder of a file."""
        folder = (self.outline / name).parent
        above = folder.relative_to(self.outline)
        return [(above / file).as_posix() for file in sorted(os.listdir(folder))]

    def _known(self, name: str) -> RemoteFile:
        """Return a file with its size and version, which a listing of a web server lacks."""
        file = self.files[name]
        if not file.version:
            file = self.remote.file(name)
            self.files[name] = file
        return file


def _is_glob(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _split(address: str) -> tuple[str, str]:
    """Return the address of a folder, and what is meant inside it: nothing, a file, or a glob."""
    protocol, _, rest = address.rstrip("/").partition("://")
    parts = rest.split("/")
    if protocol not in READ_ONLY:
        for number, part in enumerate(parts):
            if _is_glob(part):
                return f"{protocol}://{'/'.join(parts[:number])}", "/".join(parts[number:])
    if parts[-1].lower().endswith((*ENDINGS, *DATA_ENDINGS, *LISTS)):
        return f"{protocol}://{'/'.join(parts[:-1])}", parts[-1]
    return f"{protocol}://{rest}", ""


def _stem(name: str) -> str:
    """Return a name without the ending of a file that has its voxels, or their header."""
    ending = ending_of(Path(name))
    short = name[: len(name) - len(ending)] if ending else name
    for data_ending in (".gz", ".img", ".raw", ".zraw"):
        short = short.removesuffix(data_ending)
    return short
