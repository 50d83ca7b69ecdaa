"""What is known of the files in a folder, so that running again does only what is missing or changed."""

import errno
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segpipe.errors import ConfigError
from segpipe.files import digest, write_text
from segpipe.metrics import Score

FILE = "manifest.json"


@dataclass
class ScanRecord:
    """What became of one scan.

    Attributes:
        name: of its mask, without an ending.
        reason: why it failed; empty when it is done.
        note: what a person should know of how it was computed.
        seconds: wall time of each stage.
        volumes_ml: per label, the background left out.
        voxels: likewise.
        scores: against the truth, where that is given.
        made_from: names the content of the scan, the truth, the weights and the settings.
        files: of each file that was written, its path below the folder, and a name for its content.
        images: the scan's files.
        labels: names of what `volumes_ml` and `voxels` are of.
        ids: of those labels in the mask; none in a manifest of an earlier version.
        warnings: what is worth a look, though the mask is done.
        drawn: whether there is a picture of it in `overlays/`.
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
    labels: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    drawn: bool = False


def read_records(folder: Path) -> dict[str, ScanRecord]:
    """The outcomes of earlier runs into this folder, by name.

    Raises:
        ConfigError: if the file is not a manifest.
    """
    file = folder / FILE
    if not file.is_file():
        return {}
    try:
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["scans"]
        found = [
            ScanRecord(**{**row, "scores": [Score.from_values(score) for score in row["scores"]]})
            for row in rows
        ]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{file}: is not what predict.py writes; choose another output, or remove it"
        ) from None
    return {outcome.name: outcome for outcome in found}


def write_records(folder: Path, outcomes: dict[str, ScanRecord]) -> None:
    """Writes the outcomes, whole or not at all."""
    rows: list[dict[str, Any]] = []
    for name in sorted(outcomes):
        scores = [score.to_values() for score in outcomes[name].scores]
        rows.append({**asdict(outcomes[name]), "scores": scores})
    write_text(folder / FILE, json.dumps({"scans": rows}, indent=1) + "\n")


def settled(known: ScanRecord, made_from: str, folder: Path, retry_failed: bool) -> bool:
    """Whether nothing is left to do for a scan: its files are there as written, or it failed as it would again."""
    if known.made_from != made_from:
        return False
    if known.reason:
        return not retry_failed
    files = {folder / name: content for name, content in known.files.items()}
    return all(file.is_file() and digest([file]) == content for file, content in files.items())


def tidy(folder: Path) -> None:
    """Takes away half-written files of a run that was killed; those of one that still runs stay."""
    for part in folder.rglob(".part-*"):
        owner = part.name.split("-")[1]
        if not (owner.isdecimal() and _runs(int(owner))):
            part.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if sys.platform == "win32":  # where the question would end the process
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH  # another error: it is somebody else's
    return True
