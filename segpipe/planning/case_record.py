"""The cases of a run as it began, kept in `split.json`: a run that goes on trains on the same.

The split would be drawn anew where the dataset has grown meanwhile, and cases that trained would
validate.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segpipe.config.data import Data
from segpipe.data.cases import Dataset, name_of, read_json
from segpipe.data.inspected_case import InspectedCase
from segpipe.data.split import Split
from segpipe.errors import ConfigError
from segpipe.files import write_json
from segpipe.planning.fingerprint import content_row
from segpipe.stored import SCHEMA, check_schema
from segpipe.text import count

FILE = "split.json"
NAMED = 3  # cases that a message names at most


@dataclass(frozen=True)
class CaseRecord:
    """Which cases train and which validate, and the content of each.

    Attributes:
        split: names of the cases on both sides.
        left_out: names of the dataset's other cases, as a split file leaves them.
        contents: case name -> digest of its voxels, labels and geometry; empty in a run of
            version 0.1.0.
    """

    split: Split
    left_out: tuple[str, ...] = ()
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, split: Split, cases: Sequence[InspectedCase]) -> "CaseRecord":
        """Return the record of a dataset whose cases were read.

        Args:
            dataset: the dataset of the run.
            split: the split of its cases.
            cases: the cases that train or validate.
        """
        used = {*split.train, *split.val}
        left_out = [case.name for case in dataset.cases if case.name not in used]
        contents = {}
        for inspected in cases:
            row = content_row(inspected)
            contents[inspected.case.name] = hashlib.sha256(row.encode()).hexdigest()[:16]
        return cls(split, tuple(left_out), contents)

    def write(self, folder: Path) -> None:
        """Write `split.json` into the run's folder; it can be used as `data.split` too."""
        content = {
            "schema": SCHEMA,
            "train": self.split.train,
            "val": self.split.val,
            "left_out": self.left_out,
            "contents": self.contents,
        }
        write_json(folder / FILE, content)

    @classmethod
    def read(cls, folder: Path, dataset: Dataset, data: Data) -> "CaseRecord":
        """Read the record of a run of any version.

        Args:
            folder: the folder of the run.
            dataset: the dataset as it is now.
            data: the run's options.

        Raises:
            SegpipeError: if the file cannot be read, or does not hold a split.
        """
        file = folder / FILE
        content = read_json(file)
        check_schema(file, content)
        train = _names(file, content, "train")
        val = _names(file, content, "val")
        if "left_out" in content:
            left_out = _names(file, content, "left_out")
        elif data.split is not None:  # version 0.1.0 did not note them
            left_out = tuple(sorted(set(map(name_of, dataset.cases)) - {*train, *val}))
        else:
            left_out = ()
        contents = content.get("contents", {})
        if not isinstance(contents, dict):
            raise ConfigError(f"{file}: 'contents' must be an object, got {json.dumps(contents)}")
        return cls(Split(train, val), left_out, contents)

    def split_now(self, dataset: Dataset, folder: Path, allow_changes: bool) -> Split:
        """Return the split with the cases that are there now; new ones train.

        Args:
            dataset: the dataset as it is now.
            folder: the folder of the run, for the message.
            allow_changes: whether cases may have been added or be missing.

        Raises:
            ConfigError: if the cases are others, and that is not allowed.
        """
        names = set(map(name_of, dataset.cases))
        known = {*self.split.train, *self.split.val}
        added = sorted(names - known - {*self.left_out})
        missing = sorted(known - names)
        if not allow_changes:
            _refuse(folder, [("new", added), ("missing", missing)])
        train = [name for name in self.split.train if name in names]
        val = [name for name in self.split.val if name in names]
        if not train or not val:
            raise ConfigError(
                f"resume={folder}: none of the cases that {'validate' if train else 'train'} is "
                "in the dataset any more; is data.root another dataset?"
            )
        return Split((*train, *added), tuple(val))

    def check_contents(self, now: "CaseRecord", folder: Path) -> None:
        """Check that the cases hold what they held when the run began.

        Args:
            now: the record of the cases as they are now.
            folder: the folder of the run, for the message.

        Raises:
            ConfigError: if one of them does not; it names them.
        """
        changed = []
        for name, content in self.contents.items():
            if now.contents.get(name, content) != content:
                changed.append(name)
        _refuse(folder, [("changed", sorted(changed))])


def _names(file: Path, content: object, key: str) -> tuple[str, ...]:
    names = content.get(key) if isinstance(content, dict) else None
    if not isinstance(names, list):
        raise ConfigError(f"{file}: '{key}' must be a list of case names")
    return tuple(map(str, names))


def _refuse(folder: Path, changes: Sequence[tuple[str, list[str]]]) -> None:
    """Raise ConfigError where there is a change: an adjective and the names of the cases."""
    said = []
    for adjective, names in changes:
        if names:
            more = " ..." if len(names) > NAMED else ""
            listed = ", ".join(names[:NAMED])
            said.append(f"{count(len(names), f'{adjective} case')} ({listed}{more})")
    if said:
        raise ConfigError(
            f"resume={folder}: the dataset is not what it was when the run began: "
            f"{', '.join(said)}; restore it, or go on with it as it is by resume_changed=true, "
            "which keeps the split and lets new cases train"
        )
