"""Words of every dataset: the case, the dataset, and the files that they name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.errors import DataError

ENDINGS = (".nii.gz", ".nii", ".png", ".tiff", ".tif", ".jpeg", ".jpg")


@dataclass(frozen=True)
class Case:
    """One subject's image channels with the label map, if any.

    Attributes:
        name: unique in its dataset.
        images: one file per channel, or one file that holds them all.
        label: the label map's file.
        group: cases of one group (a patient) never stand on both sides of a split.
        split: `train` or `val` where a table says so.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Dataset:
    """The cases of a dataset and what it declares of itself.

    Attributes:
        name: for logs.
        cases: those with labels, sorted by name.
        test: the dataset's own test part, with labels where it has them.
        labels: name -> id on disk, background first; None where they are not declared.
        channels: names of the image channels; one name where they are not declared.
    """

    name: str
    cases: tuple[Case, ...]
    test: tuple[Case, ...]
    labels: dict[str, int] | None
    channels: tuple[str, ...]


def stem(path: Path) -> str:
    """The file name without its image ending."""
    return next(
        (path.name[: -len(ending)] for ending in ENDINGS if path.name.lower().endswith(ending)),
        path.name,
    )


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: if it is not one.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error})") from None


def check_files(source: Path, cases: Sequence[Case]) -> None:
    """Refuses cases whose files are not there.

    Raises:
        DataError: with their number and the first of them.
    """
    named = [
        path for case in cases for path in (*case.images, *([case.label] if case.label else []))
    ]
    if missing := [path for path in named if not path.is_file()]:
        raise DataError(
            f"{source}: {len(missing)} of {len(named)} named files are not there, as {missing[0]}"
        )
