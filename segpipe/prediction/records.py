"""The records of a folder of predictions: one per scan, kept in `manifest.json`.

The manifest, `predictions.csv` and `index.html` are made from them, and running again does only
what is missing or changed.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from segpipe.data.prepare import PreparedScan
from segpipe.errors import ConfigError
from segpipe.files import digest, write_json
from segpipe.metrics import Score, score_columns
from segpipe.prediction.scans import Scan
from segpipe.stored import SCHEMA, read_record, reason
from segpipe.text import clipped, name_fault, visible
from segpipe.units import UNITS, UnitName, Units

log = logging.getLogger("segpipe")
FILE = "manifest.json"
MEND = "; choose another output"
MIXED = Units("mm or px", "mL, px² or px³")
STAGES = ("read", "network", "resample", "write")  # of which the seconds are kept


@dataclass
class ScanRecord:
    """What became of one scan. Stored in full; every field but `name` may be missing in a manifest.

    Attributes:
        name: of its mask, without suffix.
        reason: why it failed; empty when it is done.
        note: what was unusual in how it was computed.
        seconds: wall time of each stage.
        volumes_ml: per label, the background left out.
        voxels: likewise.
        scores: against the truth, where that is given.
        made_from: digest of the scan, the truth, the weights and the settings.
        files: path below the folder -> digest, for each file that was written.
        images: paths of the scan's files.
        truth: path of its label map; empty where none is given.
        labels: names of the labels of `volumes_ml` and `voxels`.
        ids: of those labels in the mask; empty in a manifest of an earlier version.
        warnings: what is worth a look, though the mask is done.
        drawn: whether there is a picture of it.
        unit: in which its lengths and volumes are shown.
    """

    name: str
    reason: str = ""
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    volumes_ml: list[float] = field(default_factory=list)
    voxels: list[int] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    made_from: str = ""
    files: dict[str, str] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    truth: str = ""
    labels: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    drawn: bool = False
    unit: UnitName = "mm"

    @property
    def units(self) -> Units:
        """Return the units in which lengths and volumes are shown."""
        return UNITS.get(self.unit, UNITS["mm"])

    @property
    def failed(self) -> bool:
        """Return whether there is no mask."""
        return bool(self.reason)

    @property
    def picture(self) -> str:
        """Return the path of the picture below the folder."""
        return f"overlays/{self.name}.png"


@dataclass
class ReadScan:
    """A scan that was read while the network computed another.

    Attributes:
        scan: that was read.
        record: of it; with a reason where it could not be read.
        prepared: as the network sees it; None where it could not be read, or is up to date.
    """

    scan: Scan
    record: ScanRecord
    prepared: PreparedScan | None = None


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        scans: a row for each scan, of any version.
    """

    scans: list[dict[str, Any]]


def read_records(folder: Path) -> dict[str, ScanRecord]:
    """Return the records of earlier calls into this folder, by name.

    Missing fields get their defaults. Unknown fields are ignored, and named in a line of the log.

    Raises:
        ConfigError: if the file is not a manifest, or one of a later version.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    unknown: set[str] = set()
    records: dict[str, ScanRecord] = {}
    rows = read_record(file, Manifest, MEND).scans
    try:
        for row in rows:
            record = _record(row, unknown)
            if record.name in records:
                raise ValueError(f"{clipped(record.name)} occurs twice")
            records[record.name] = record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        cause = reason(error) if isinstance(error, ValueError) else clipped(error)
        raise ConfigError(f"{file}: is not what segpipe writes ({cause}){MEND}") from None
    if unknown:
        log.info("%s: ignored unknown fields: %s", file, ", ".join(sorted(unknown)))
    return records


def units_of(records: Iterable[ScanRecord]) -> Units:
    """Return the units of scans that are shown in one table: of mixed ones mm, mL and pixels."""
    found = {record.unit for record in records}
    return UNITS[found.pop()] if len(found) == 1 else MIXED


def scores_of(records: Iterable[ScanRecord]) -> list[Score]:
    """Return the scores of all scans that have a mask and were compared with a truth."""
    scores: list[Score] = []
    for record in records:
        if not record.failed:
            scores += record.scores
    return scores


def write_records(folder: Path, records: Mapping[str, ScanRecord]) -> None:
    """Write the manifest, sorted by name.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    rows: list[dict[str, Any]] = []
    for name in sorted(records):
        scores = [score.to_values() for score in records[name].scores]
        rows.append({**asdict(records[name]), "scores": scores})
    write_json(folder / FILE, {"schema": SCHEMA, "scans": rows})


def is_up_to_date(record: ScanRecord, made_from: str, folder: Path, retry_failed: bool) -> bool:
    """Return whether nothing is left to do for a scan.

    Either its files are there as they were written, or it failed and would fail again.
    """
    if record.made_from != made_from:
        return False
    if record.failed:
        return not retry_failed
    for name, content in record.files.items():
        file = folder / name
        if not file.is_file() or digest([file]) != content:
            return False
    return True


def _record(row: Mapping[str, Any], unknown: set[str]) -> ScanRecord:
    """Return the record of a row, and add the fields that it does not have to `unknown`."""
    values = _fields_of(ScanRecord, row, unknown)
    scores = []
    for score in values.get("scores", []):
        unknown |= score.keys() - {*score_columns()}
        scores.append(Score.from_values(score))
    record = TypeAdapter(ScanRecord).validate_python({**values, "scores": scores})
    for path in (record.name, *record.files):
        if name_fault(path):
            raise ValueError(f"{clipped(visible(path))} {name_fault(path)}")
    return record


def _fields_of(kind: type[Any], row: Mapping[str, Any], unknown: set[str]) -> dict[str, Any]:
    """Return the entries of a row that a dataclass has, and add the others to `unknown`."""
    names = {item.name for item in fields(kind)}
    unknown |= row.keys() - names
    return {name: value for name, value in row.items() if name in names}
