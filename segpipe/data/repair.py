"""A corrected copy of a dataset, of what can be corrected without guessing; the originals are never touched."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.data.cases import stem
from segpipe.data.inspection import InspectedCase
from segpipe.data.prepare import mask_dtype
from segpipe.errors import ConfigError
from segpipe.io.volumes import read, write_mask

SAFE = {"affine", "picture"}  # what is mended; a copy is left out


def write_repaired(
    cases: Sequence[InspectedCase], labels: dict[str, int], folder: Path
) -> list[str]:
    """Writes the usable cases as `images/` and `labels/`, the layout `folder`.

    Images are copied byte by byte. A label map becomes whole numbers of one type on its image's very grid, 0 and 255
    become 0 and the one label that there is, and the second of two equal images is left out.

    Args:
        cases: as `examine` found them.
        labels: name -> id on disk, background first.
        folder: new.

    Returns:
        The names of the cases that are left out.

    Raises:
        ConfigError: if the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"fix={folder}: is not empty; name a new folder")
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    left_out = []
    for seen in cases:
        kinds = {finding.kind for finding in seen.findings}
        errors = {finding.kind for finding in seen.findings if finding.severity == "error"}
        if seen.case.label is None or errors - SAFE or "copy" in kinds:
            left_out.append(seen.case.name)
        else:
            _write_case(seen, "picture" in kinds, labels, folder)
    return left_out


def _write_case(seen: InspectedCase, picture: bool, labels: dict[str, int], folder: Path) -> None:
    assert seen.case.label is not None
    name, first = seen.case.name, seen.case.images[0]
    for number, image in enumerate(seen.case.images):
        channel = f"_{number:04d}" if len(seen.case.images) > 1 else ""
        shutil.copy2(image, folder / "images" / f"{name}{channel}{_ending(image)}")
    mask = np.rint(read([seen.case.label]).numpy()[0]).astype(np.int64)
    if picture:
        mask[mask == 255] = max(labels.values())
    ending = (
        ".png" if _ending(first).lower() in (".jpg", ".jpeg") else _ending(first)
    )  # JPEG would blur the ids
    write_mask(mask, first, folder / "labels" / f"{name}{ending}", mask_dtype(labels))


def _ending(path: Path) -> str:
    return path.name[len(stem(path)) :]
