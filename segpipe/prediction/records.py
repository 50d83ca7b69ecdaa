"""The record of a scan in a folder of predictions: what became of it, and from what it was made."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from segpipe.data.prepare import PreparedScan
from segpipe.metrics import METRICS, Score
from segpipe.prediction.channel_sets import Scan
from segpipe.text import clipped, name_fault, visible
from segpipe.units import UNITS, UnitName, Units

MIXED = Units("mm or px", "mL, px² or px³")
STAGES = ("read", "network", "resample", "write")  # of which the seconds are kept


@dataclass(slots=True)
class ScanRecord:
    """What became of one scan. Stored in full; every field but `name` may be missing in a manifest.

    Attributes:
        name: the name of its mask, without suffix.
        reason: the reason why it failed; empty when it is done.
        note: what was unusual in how it was computed.
        seconds: wall time of each stage.
        volumes_ml: the volume of each label, the background left out, mL.
        voxels: number of voxels of each label, the background left out.
        scores: its scores against the truth, where that is given.
        made_from: digest of the scan, the truth, the weights and the settings.
        files: path below the folder -> digest, for each file that was written.
        images: paths of the scan's files.
        truth: path of its label map; empty where none is given.
        labels: names of the labels of `volumes_ml` and `voxels`.
        ids: the ids of those labels in the mask; empty in a manifest of an earlier version.
        warnings: what is worth a look, though the mask is done.
        drawn: whether there is a picture of it.
        unit: the unit in which its lengths and volumes are shown.
        quality: predicted Dice of its mask, mean over the targets; None where it is not predicted.
        quality_reason: the reason why that is not higher, in words.
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
    quality: float | None = None
    quality_reason: str = ""

    @property
    def units(self) -> Units:
        """Return the units in which lengths and volumes are shown."""
        return UNITS.get(self.unit, UNITS["mm"])

    @property
    def scan(self) -> Scan:
        """Return the scan that it is of."""
        return Scan(self.name, tuple(map(Path, self.images)))

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
        scan: the scan that was read.
        record: its record, which has a reason where it could not be read.
        prepared: the scan as the network sees it; None where there is nothing to compute.
        state: `new`, `unchanged` where its files are up to date, or `claimed` by another call.
    """

    scan: Scan
    record: ScanRecord
    prepared: PreparedScan | None = None
    state: Literal["new", "unchanged", "claimed"] = "new"


RECORD = TypeAdapter(ScanRecord)
FIELDS = [item.name for item in fields(ScanRecord)]


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


def label_names(records: Iterable[ScanRecord]) -> list[str]:
    """Return the names of the labels of all scans, in the order of their first appearance."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(record.labels)
    return list(names)


def key_of(name: str) -> str:
    """Return the name of the file that belongs to a scan, which any file system takes."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def to_row(record: ScanRecord) -> dict[str, Any]:
    """Return a record as plain values, by the names of its fields."""
    row = {name: getattr(record, name) for name in FIELDS}
    row["scores"] = [score.to_values() for score in record.scores]
    return row


def is_up_to_date(
    record: ScanRecord, made_from: str, retry_failed: bool, is_there: Callable[[str, str], bool]
) -> bool:
    """Return whether nothing is left to do for a scan.

    Either its files are there as they were written, or it failed and would fail again.

    Args:
        record: the record of an earlier call.
        made_from: digest of the scan, the truth, the weights and the settings, as they are now.
        retry_failed: whether what failed is tried again.
        is_there: takes the path of a file below the folder and its digest.
    """
    if record.made_from != made_from:
        return False
    if record.failed:
        return not retry_failed
    return all(is_there(name, content) for name, content in record.files.items())


def is_known_failure(record: ScanRecord, earlier: ScanRecord | None) -> bool:
    """Return whether a scan has failed before, of the same content and for the same reason."""
    if earlier is None or not record.failed:
        return False
    return (earlier.made_from, earlier.reason) == (record.made_from, record.reason)


def from_row(row: Mapping[str, Any], unknown: set[str]) -> ScanRecord:
    """Return the record of a row, and add the fields that it does not have to `unknown`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: if it is not what `to_row` makes.
    """
    unknown |= row.keys() - {*FIELDS}
    values = {name: value for name, value in row.items() if name in FIELDS}
    scores = []
    for score in values.get("scores", []):
        unknown |= score.keys() - {"case", "label", "volume_ml", "truth_ml", *METRICS}
        scores.append(Score.from_values(score))
    record = RECORD.validate_python({**values, "scores": scores})
    for path in (record.name, *record.files):
        if name_fault(path):
            raise ValueError(f"{clipped(visible(path))} {name_fault(path)}")
    return record
