"""The records of a folder of predictions: a small file for each scan, below `.segpipe`.

A file is written once its scan is done, whole or not at all, and by any number of calls at once, so
that the cost of a scan does not grow with their number. `manifest.json`, the tables and the page
are made from the records. Folders of earlier versions have the manifest alone, which becomes
records when it is first met.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.errors import ConfigError
from segpipe.files import part_name, write_text
from segpipe.plain import read_text
from segpipe.prediction.records import ScanRecord, from_row, key_of, to_row
from segpipe.stored import KEY, SCHEMA, check_schema, read_record, reason
from segpipe.text import clipped, visible

log = logging.getLogger("segpipe")
FOLDER = ".segpipe/records"
MANIFEST = "manifest.json"
MOST_BYTES = 2**24  # of a record
MEND = "; choose another output"
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        scans: a row for each scan, of any version.
    """

    scans: list[dict[str, Any]]


class RecordStore:
    """The records of a folder of predictions, as this call knows them.

    Args:
        output: the folder.
        reads_all: whether all records are read now, rather than each when it is asked for.

    Attributes:
        records: the records by the scan's name.

    Raises:
        ConfigError: if there is only a manifest, which cannot be read, or if one is of a newer
            version.
    """

    def __init__(self, output: Path, reads_all: bool = True) -> None:
        self.folder = output / FOLDER
        self.records: dict[str, ScanRecord] = {}
        self._stamps: dict[str, Stamp] = {}  # by the path of a file: which version of it was read
        self._unknown: set[str] = set()
        if not self.folder.is_dir() and (output / MANIFEST).exists():
            _convert(output, self.folder)
        if reads_all:
            self.refresh()

    def refresh(self) -> None:
        """Read the records that other calls have written since the last time.

        Raises:
            ConfigError: if one is of a newer version.
        """
        for path, stamp in _files(self.folder):
            if self._stamps.get(path) != stamp:
                self._read(path, stamp)

    def latest(self, name: str) -> ScanRecord | None:
        """Return the record of a scan, as it is on the disk now.

        Raises:
            ConfigError: if it is of a newer version.
        """
        path = str(_file(self.folder, name))
        stamp = _stamp_of(path)
        if stamp is not None and self._stamps.get(path) != stamp:
            self._read(path, stamp)
        return self.records.get(name)

    def write(self, record: ScanRecord) -> Path:
        """Keep a record, in place of an earlier one, and return its file.

        Raises:
            DataError: if it cannot be written, as on a full disk.
        """
        file = _file(self.folder, record.name)
        write_text(file, _text(record))
        self.records[record.name] = record
        stamp = _stamp_of(str(file))
        if stamp is not None:
            self._stamps[str(file)] = stamp
        return file

    def forget(self, name: str) -> None:
        """Hold the record of a scan no longer; it stays on the disk."""
        self.records.pop(name, None)
        self._stamps.pop(str(_file(self.folder, name)), None)

    def _read(self, path: str, stamp: Stamp) -> None:
        """Take up the record of a file; one that is damaged counts as missing."""
        self._stamps[path] = stamp
        try:
            row = _checked_row(Path(path))
        except (ConfigError, *DAMAGE) as error:
            log.warning("%s: is damaged and ignored (%s)", path, clipped(visible(error)))
            return
        check_schema(path, row)
        unknown: set[str] = set()
        try:
            record = from_row(row, unknown)
        except DAMAGE as error:
            log.warning("%s: is damaged and ignored (%s)", path, clipped(visible(error)))
            return
        self._name_unknown(path, unknown - {KEY})
        self.records[record.name] = record

    def _name_unknown(self, path: str, unknown: set[str]) -> None:
        new = unknown - self._unknown
        if new:
            log.info("%s: ignored unknown fields: %s", path, ", ".join(sorted(new)))
            self._unknown |= new


def rows_of(records: Mapping[str, ScanRecord]) -> Iterator[str]:
    """Yield the text of a manifest in pieces: the scans sorted by name, a line each."""
    yield f'{{"{KEY}": {SCHEMA}, "scans": ['
    separator = "\n"
    for name in sorted(records):
        yield separator + json.dumps(to_row(records[name]))
        separator = ",\n"
    yield "\n]}\n"


def read_manifest(file: Path) -> dict[str, ScanRecord]:
    """Return the records of a manifest, by name.

    Missing fields get their defaults. Unknown fields are ignored, and named in a line of the log.

    Raises:
        ConfigError: if the file is not a manifest, or one of a newer version.
    """
    unknown: set[str] = set()
    records: dict[str, ScanRecord] = {}
    rows = read_record(file, Manifest, MEND).scans
    try:
        for row in rows:
            record = from_row(row, unknown)
            if record.name in records:
                raise ValueError(f"{clipped(record.name)} occurs twice")
            records[record.name] = record
    except DAMAGE as error:
        cause = reason(error) if isinstance(error, ValueError) else clipped(error)
        raise ConfigError(f"{file}: is not what segpipe writes ({cause}){MEND}") from None
    if unknown:
        log.info("%s: ignored unknown fields: %s", file, ", ".join(sorted(unknown)))
    return records


def _convert(output: Path, folder: Path) -> None:
    """Make the records of a manifest, all of them or none.

    Raises:
        ConfigError: if the manifest cannot be read.
        DataError: if the records cannot be written.
    """
    records = read_manifest(output / MANIFEST)
    part = output / part_name("records")
    try:
        for record in records.values():
            write_text(_file(part, record.name), _text(record))
        if records:
            folder.parent.mkdir(exist_ok=True)
            os.rename(part, folder)
    except OSError:  # another call has done the same
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _file(folder: Path, name: str) -> Path:
    """Return the file of a scan's record: 256 folders, since some file systems slow down."""
    key = key_of(name)
    return folder / key[:2] / f"{key}.json"


def _text(record: ScanRecord) -> str:
    """Return the content of a record's file."""
    row = {KEY: SCHEMA, **to_row(record)}
    return json.dumps({"checksum": _checksum(row), "record": row}) + "\n"


def _checked_row(file: Path) -> dict[str, Any]:
    """Return the row of a record's file.

    Raises:
        ConfigError: if it cannot be read.
        ValueError, KeyError, TypeError: if it is damaged, or stands under another scan's name.
    """
    content = json.loads(read_text(file, MOST_BYTES))
    row = content["record"]
    if content["checksum"] != _checksum(row):
        raise ValueError("its checksum differs")
    if f"{key_of(row['name'])}.json" != file.name:
        raise ValueError("it is another scan's")
    return row


def _checksum(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:32]


def _files(folder: Path) -> Iterator[tuple[str, Stamp]]:
    """Yield the files of all records with their stamps."""
    if not folder.is_dir():
        return
    for bucket in sorted(folder.iterdir()):
        if not bucket.is_dir():
            continue
        for path in sorted(os.listdir(bucket)):
            stamp = _stamp_of(f"{bucket}/{path}")
            if path.endswith(".json") and not path.startswith(".") and stamp is not None:
                yield f"{bucket}/{path}", stamp


def _stamp_of(path: str) -> Stamp | None:
    """Return what tells a version of a file from another; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
