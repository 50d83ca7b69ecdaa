"""A remote folder of predictions: filled here scan by scan, each copied there once it is done."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from segpipe.errors import ConfigError
from segpipe.files import PART, write_bytes
from segpipe.prediction.record_store import FOLDER, MANIFEST, MOST_BYTES
from segpipe.processes import HOST, is_running
from segpipe.remote import READ_ONLY, RemoteFolder

RECORD = re.compile(rf"{re.escape(FOLDER)}/[0-9a-f]{{2}}/[0-9a-f]{{32}}\.json")
LOG = "predict.log"
TABLES_AND_PAGES = {".csv", ".html", ".json", ".log"}
PICTURES_BYTES = 2**26  # of pictures that stay here for the page; the others are linked from it


class RemoteOutput:
    """A remote folder of predictions, and the folder of this machine in which it is filled.

    Records are copied here at the start. The files of a scan are copied there before its record, so
    that no record names a file that is not there; tables and page follow at the end.

    Args:
        address: the address of the remote folder.
        folder: on this machine, in which a folder of its name is made.

    Attributes:
        folder: on this machine.

    Raises:
        ConfigError: if the address cannot be used.
        DataError: if the server cannot be asked.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.remote = RemoteFolder(address, "output")
        if self.remote.protocol in READ_ONLY:
            raise ConfigError(f"output={address}: a web server takes no files; give s3:// or such")
        self.folder = folder / (PurePosixPath(address).name or "output")
        self.folder.mkdir(parents=True)
        self._pictures_bytes = 0
        self._there: set[str] = set()
        self._pull()

    def shown(self, text: str) -> str:
        """Return a text with addresses in place of what stands for them on this machine."""
        return text.replace(str(self.folder), self.remote.address)

    def has(self, name: str) -> bool:
        """Return whether a file is in the remote folder."""
        return name in self._there

    def send(self, names: Iterable[str]) -> None:
        """Copy the finished files of a scan there, and remove them here.

        Raises:
            RemoteError: if one cannot be sent.
        """
        for name in names:
            self._send(name)
            (self.folder / name).unlink()

    def send_picture(self, name: str) -> None:
        """Copy a picture there; it stays here for the page while there are few.

        Raises:
            RemoteError: if it cannot be sent.
        """
        file = self.folder / name
        self._send(name)
        self._pictures_bytes += file.stat().st_size
        if self._pictures_bytes > PICTURES_BYTES:
            file.unlink()

    def send_record(self, file: Path) -> None:
        """Copy the record of a scan there, whose files are there.

        Raises:
            RemoteError: if it cannot be sent.
        """
        self._send(file.relative_to(self.folder).as_posix())

    def finish(self) -> None:
        """Copy there what belongs to no scan: tables, pages and log; and records that it lacks.

        Raises:
            RemoteError: if one cannot be sent.
        """
        for file in sorted(self.folder.iterdir()):
            if file.suffix in TABLES_AND_PAGES:
                self._send(file.name)
        for file in sorted((self.folder / FOLDER).rglob("*.json")):
            name = file.relative_to(self.folder).as_posix()
            if not self.has(name):  # of a folder of an earlier version
                self._send(name)

    def _send(self, name: str) -> None:
        self.remote.send(self.folder / name, name)
        self._there.add(name)

    def _pull(self) -> None:
        """Copy the records here, and the log, which is continued."""
        records: list[str] = []
        for file in self.remote.files():
            last = PurePosixPath(file.name).name
            if last.startswith(PART):
                self._clear(file.name, last)
                continue
            self._there.add(file.name)
            if RECORD.fullmatch(file.name) and (file.size or 0) <= MOST_BYTES:
                records.append(file.name)
        wanted = [name for name in (LOG, MANIFEST) if self.has(name)]
        if records and MANIFEST in wanted:  # which is made from them
            wanted.remove(MANIFEST)
        for name, content in self.remote.contents([*records, *wanted]):
            write_bytes(self.folder / name, content)

    def _clear(self, name: str, last: str) -> None:
        """Remove the unfinished file of a process of this machine that was killed."""
        process = last.removeprefix(f"{PART}{HOST}-").partition("-")[0]
        if process.isdecimal() and not is_running(int(process)):
            self.remote.remove(name)
