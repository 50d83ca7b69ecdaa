"""A repaired copy of a dataset, in which is corrected what needs no guess."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.data.inspected_case import InspectedCase
from segpipe.data.prepare import mask_dtype
from segpipe.errors import ConfigError
from segpipe.io.formats import stem
from segpipe.io.volumes import load_label, write_mask

REPAIRED = {"affine", "picture"}  # kinds of findings that a repaired copy no longer has


def write_repaired(
    cases: Sequence[InspectedCase], labels: dict[str, int], folder: Path
) -> list[str]:
    """Write the usable cases as `images/` and `labels/`, the layout `folder`.

    Images are copied byte by byte. A label map is written as whole numbers of one type on its
    image's exact grid, 0 and 255 become 0 and the only label, and the second of two equal images is
    left out.

    Args:
        cases: as `inspect_cases` returns them.
        labels: name -> id on disk, background first.
        folder: new or empty.

    Returns:
        The names of the cases that are left out.

    Raises:
        ConfigError: if the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"fix={folder}: is not empty; name a new folder")
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    left_out = []
    for inspected in cases:
        if _can_be_repaired(inspected):
            _write_case(inspected, labels, folder)
        else:
            left_out.append(inspected.case.name)
    return left_out


def _can_be_repaired(inspected: InspectedCase) -> bool:
    if inspected.case.label is None:
        return False
    for finding in inspected.findings:
        is_fatal = finding.severity == "error" and finding.kind not in REPAIRED
        if is_fatal or finding.kind == "copy":
            return False
    return True


def _write_case(inspected: InspectedCase, labels: dict[str, int], folder: Path) -> None:
    case = inspected.case
    first = case.images[0]
    assert case.label is not None
    for number, image in enumerate(case.images):
        channel = f"_{number:04d}" if len(case.images) > 1 else ""
        shutil.copy2(image, folder / "images" / f"{case.name}{channel}{_ending(image)}")
    mask = np.rint(load_label(case.label).numpy()[0]).astype(np.int64)
    if any(finding.kind == "picture" for finding in inspected.findings):
        mask[mask == 255] = max(labels.values())
    ending = _ending(first)
    if ending.lower() in (".jpg", ".jpeg"):
        ending = ".png"  # JPEG would blur the ids
    target = folder / "labels" / f"{case.name}{ending}"
    write_mask(mask, first, target, mask_dtype(labels))


def _ending(path: Path) -> str:
    return path.name[len(stem(path)) :]
