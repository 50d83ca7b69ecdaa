"""A repaired copy of a dataset, in which is corrected what needs no guess."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from segpipe.config.data import NaNPolicy
from segpipe.data.inspected_case import Finding, InspectedCase
from segpipe.data.prepare import mask_dtype
from segpipe.errors import ConfigError
from segpipe.geometry import Volume
from segpipe.io.content import content_files, has_invalid
from segpipe.io.formats import DICOM, ending_of, format_of
from segpipe.io.label_maps import load_label_of
from segpipe.io.volumes import load, mask_ending, write_mask

# kinds of findings that a repaired copy no longer has, and what is done about them
REPAIRED = {
    "affine": "affine copied from the image",
    "picture": "255 made the label's id",
    "survived": "label map written anew",
    "rounded": "label ids written as whole numbers",
}
FILLED = "voxels that are NaN or infinite filled with their channel's smallest value"


@dataclass
class Repair:
    """What became of the cases of a dataset.

    Attributes:
        written: names of the cases of the copy.
        mended: what was mended -> number of cases.
        left: kind of the finding that was not -> names of the cases that are left out.
    """

    written: list[str] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    left: dict[str, list[str]] = field(default_factory=dict)


def can_be_repaired(inspected: InspectedCase) -> bool:
    """Return whether a case can be used after what is safe was mended."""
    return _obstacle(inspected) is None


def write_repaired(
    cases: Sequence[InspectedCase],
    labels: dict[str, int],
    folder: Path,
    nan: NaNPolicy = "refuse",
) -> Repair:
    """Write the usable cases as `images/` and `labels/`, the layout `folder`.

    Images are copied byte by byte; those whose voxels lie in a file beside the header are written
    as NIfTI. A label map is written as whole numbers of one type on its image's exact grid, 0 and
    255 become 0 and the only label, and the second of two equal images is left out.

    Args:
        cases: the cases as `inspect_cases` returns them.
        labels: name -> id on disk, background first.
        folder: the folder to write, new or empty.
        nan: `fill`: images with voxels that are NaN or infinite are written as NIfTI, filled.

    Raises:
        ConfigError: if the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"fix={folder}: is not empty; name a new folder")
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    repair = Repair()
    for inspected in cases:
        obstacle = _obstacle(inspected)
        if obstacle is not None:
            repair.left.setdefault(obstacle, []).append(inspected.case.name)
            continue
        filled = _write_case(inspected, labels, folder, nan)
        repair.written.append(inspected.case.name)
        repair.mended.update({REPAIRED[kind] for kind in _mended(inspected)})
        if filled:
            repair.mended[FILLED] += 1
    return repair


def _obstacle(inspected: InspectedCase) -> str | None:
    """Return the kind of the first finding for which a case is left out; None if it is not."""
    if inspected.case.label is None:
        return "no label map"
    for finding in inspected.findings:
        is_fatal = finding.severity == "error" and finding.kind not in REPAIRED
        if is_fatal or finding.kind == "copy":
            return finding.kind
    return None


def _mended(inspected: InspectedCase) -> set[str]:
    """Return the kinds of the findings that the copy of a case no longer has."""
    return {finding.kind for finding in inspected.findings if _is_mended(inspected, finding)}


def _is_mended(inspected: InspectedCase, finding: Finding) -> bool:
    if finding.kind == "survived":  # trouble of the label map's file, which is written anew
        return finding.problem.startswith(str(inspected.case.label))
    return finding.kind in REPAIRED


def _write_case(
    inspected: InspectedCase, labels: dict[str, int], folder: Path, nan: NaNPolicy
) -> bool:
    """Write the files of a case, and return whether voxels of an image were filled."""
    case = inspected.case
    first = case.images[0]
    assert case.label is not None
    assert inspected.grid is not None
    filled = False
    for number, image in enumerate(case.images):
        channel = f"_{number:04d}" if len(case.images) > 1 else ""
        is_filled = nan == "fill" and has_invalid(image)
        _copy_image(image, folder / "images" / f"{case.name}{channel}", is_filled)
        filled = filled or is_filled
    label = load_label_of(case.label, inspected.grid, labels=labels)
    mask = np.rint(label.numpy()[0]).astype(np.int64)
    if any(finding.kind == "picture" for finding in inspected.findings):
        mask[mask == 255] = max(labels.values())
    target = folder / "labels" / f"{case.name}{mask_ending(first)}"
    write_mask(mask, first, target, mask_dtype(labels))
    return filled


def _copy_image(image: Path, target: Path, is_filled: bool) -> None:
    """Copy an image to a path without its ending; a DICOM series becomes a folder.

    Args:
        image: the image.
        target: path without an ending.
        is_filled: whether voxels that are NaN or infinite are to be filled.
    """
    files = content_files([image])
    if is_filled:
        _write_nifti(load(image, "fill"), target)
    elif format_of(image) is DICOM:
        target.mkdir()
        for number, file in enumerate(files):
            shutil.copy2(file, target / f"{number:05d}.dcm")
    elif len(files) == 1:
        ending = image.name[len(image.name) - len(ending_of(image)) :]
        shutil.copy2(image, target.with_name(target.name + ending))
    else:  # a header names its data file, so that neither can be renamed
        _write_nifti(load(image), target)


def _write_nifti(volume: Volume, target: Path) -> None:
    """Write a volume `(C, x, y, z)` to a path without its ending."""
    voxels = np.moveaxis(volume.numpy(), 0, -1)
    if voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    scan = nib.Nifti1Image(voxels, np.asarray(volume.affine))
    nib.save(scan, target.with_name(f"{target.name}.nii.gz"))
