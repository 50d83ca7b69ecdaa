"""The case and the dataset, whatever their layout, and checks of the files that they name."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segpipe.errors import DataError, SegpipeError
from segpipe.text import clipped, unwritable, visible

MOST_LABELS = 254  # beside the background: label indices are uint8, and 255 is nobody's annotation
LARGEST_ID = 2**32 - 1  # that a mask can hold


@dataclass(frozen=True)
class Case:
    """One subject's image channels with the label map, if any.

    Attributes:
        name: unique in its dataset.
        images: one file per channel, or one file that holds them all.
        label: the label map's file.
        group: the patient, or whatever else cases share that must not be split between training
            and validation.
        split: `train` or `val` where a table says so.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    group: str | None = None
    split: str | None = None

    @property
    def files(self) -> list[Path]:
        """Return the images and, where there is one, the label map."""
        return [*self.images, self.label] if self.label else list(self.images)


@dataclass(frozen=True)
class Dataset:
    """The cases of a dataset and what it declares of itself.

    Attributes:
        name: the dataset's name, for logs.
        cases: those with labels, sorted by name.
        test: the dataset's own test part, with labels where it has them.
        labels: name -> id on disk, background first; None where they are not declared.
        channels: names of the image channels; one name where they are not declared.
        regions: region name -> ids on disk, where the dataset declares regions.
        paint: region name -> id on disk by which a mask shows it, where the dataset says so.
        ignore: id on disk of voxels that nobody has annotated, where there are such.
        names: id on disk -> name, of ids that may be found where no labels are declared.
        declares_channels: whether every case must have as many channels as `channels` names.
    """

    name: str
    cases: tuple[Case, ...]
    test: tuple[Case, ...]
    labels: dict[str, int] | None
    channels: tuple[str, ...]
    declares_channels: bool = False
    regions: dict[str, list[int]] | None = None
    paint: dict[str, int] | None = None
    ignore: int | None = None
    names: Mapping[int, str] = field(default_factory=dict)


def name_of(case: Case) -> str:
    """Return the name of a case, to sort cases by it or to list their names."""
    return case.name


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: if it cannot be read, or is not JSON.
    """
    if not os.path.isfile(file):
        raise DataError(f"{file}: cannot be read as JSON (it is no regular file)")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise DataError(f"{file}: cannot be read as JSON (too deeply nested)") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error})") from None


def order_labels(
    labels: dict[str, int], source: object, error: type[SegpipeError] = DataError
) -> dict[str, int]:
    """Return labels, name -> id, in the order of their ids, which puts the background first.

    Args:
        labels: name -> id.
        source: the place of their declaration, for the message.
        error: what to raise.

    Raises:
        SegpipeError: as one of the type `error`, if there is no background, no other
            label, or an id that two labels share; if there are too many labels, or an id or a name
            that none can have.
    """
    if len(labels) > MOST_LABELS + 1:
        raise error(
            f"{source}: has {len(labels)} labels; at most {MOST_LABELS} and a background can be "
            "learnt: unite some, or train on fewer by data.labels"
        )
    for name, number in labels.items():
        if unwritable(name):
            raise error(f"{source}: the label {clipped(visible(name))} {unwritable(name)}")
        if number > LARGEST_ID:
            raise error(f"{source}: the label {name} has the id {number}; at most {LARGEST_ID}")
    ids = set(labels.values())
    if 0 not in ids or len(ids) < len(labels) or len(labels) < 2:
        raise error(
            f"{source}: the labels {labels} must include a background with id 0 and at least one "
            "more, each with an id of its own"
        )
    return dict(sorted(labels.items(), key=lambda label: label[1]))


def check_files(source: Path, cases: Sequence[Case]) -> None:
    """Check that the files of these cases exist.

    Args:
        source: the file that names them, for the message.
        cases: the cases.

    Raises:
        DataError: with the number of missing files and the first of them.
    """
    files: list[Path] = []
    for case in cases:
        files += case.files
    missing = [path for path in files if not os.path.lexists(path)]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(files)} named files do not exist, such as "
            f"{visible(missing[0])}"
        )


def check_unique(root: Path, dataset: Dataset) -> None:
    """Check that no name and no image occurs twice in a dataset.

    Raises:
        DataError: with the first name or image that does.
    """
    images: list[str] = []
    for case in (*dataset.cases, *dataset.test):
        images += map(str, case.images)
    occurrences = {
        "case name": Counter(map(name_of, dataset.cases)),
        "test case name": Counter(map(name_of, dataset.test)),
        "image": Counter(images),
    }
    for kind, counter in occurrences.items():
        for value, count in counter.most_common(1):
            if count > 1:
                raise DataError(
                    f"{root}: the {kind} {value} occurs {count} times; it must occur once"
                )
