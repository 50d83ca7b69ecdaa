"""Where scans come from and masks go: folders of this machine; `remote_places` has others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segpipe.config.predict import Predict
from segpipe.files import digest
from segpipe.io.content import content_files
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.records import ScanRecord


class Places:
    """The folders of this machine, which need nothing to be done."""

    def check(self, scans: Sequence[Scan]) -> None:
        """Check that scans can be used where they are.

        Raises:
            ConfigError: otherwise.
        """

    def identity(self, scan: Scan) -> tuple[list[Path], list[Any]]:
        """Return the files and the plain values that change with the content of a scan.

        Raises:
            DataError: if they cannot be had.
        """
        return content_files(scan.images), []

    def opened(self, scan: Scan) -> Scan:
        """Return a scan with files that can be read, until `settle`.

        Raises:
            DataError: if they cannot be had.
        """
        return scan

    def has(self, folder: Path, name: str) -> bool:
        """Return whether a file is there, below the folder of the masks."""
        return (folder / name).is_file()

    def is_there(self, folder: Path, name: str, content: str) -> bool:
        """Return whether a file of an earlier call is there as it was written.

        Args:
            folder: the folder of the masks.
            name: the name of the file below it.
            content: digest of what was written.
        """
        return self.has(folder, name) and digest([folder / name]) == content

    def keep_files(self, record: ScanRecord) -> None:
        """Take the files of a scan that were written.

        Raises:
            DataError: if they cannot be kept.
        """

    def settle(self, record: ScanRecord) -> None:
        """Complete the record of a scan, of which no file is needed any more."""

    def keep_record(self, file: Path) -> None:
        """Take the record of a scan that was written.

        Raises:
            DataError: if it cannot be kept.
        """

    def named(self, options: Predict) -> Predict:
        """Return the options as a page shows them."""
        return options

    def shown(self, path: object) -> str:
        """Return a path, or a text with paths, as people should see it."""
        return str(path)


LOCAL = Places()
