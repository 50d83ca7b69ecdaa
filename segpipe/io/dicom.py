"""DICOM: the volumes of a folder, and the voxels of one of them."""

import itertools
import logging
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_file import ENDINGS as ENDINGS
from segpipe.io.dicom_file import is_dicom, only_file, stem_of
from segpipe.io.dicom_frames import Header, open_header
from segpipe.io.dicom_pixels import read_values
from segpipe.io.dicom_segments import LabelStack, is_segmentation, on_grid
from segpipe.io.dicom_split import split
from segpipe.io.dicom_stacks import Stack
from segpipe.io.dicom_tags import CAPTURES, STRUCTURE_SET
from segpipe.io.nifti import check_header
from segpipe.text import count

LISTED = 8  # volumes that a message names
NAME_LENGTH = 60
_logger = logging.getLogger("segpipe")


@dataclass(frozen=True)
class FoundVolume:
    """A volume in a folder of DICOM files.

    Attributes:
        path: the folder if it holds no other, else the volume's first file.
        name: the name for its mask; unlike those of the other volumes in the folder.
        description: its series, its slices, and what tells it from others of its series.
        is_one_file: whether the volume is a single file, as a radiograph.
    """

    path: Path
    name: str
    description: str
    is_one_file: bool = False


def is_series(folder: Path) -> bool:
    """Return whether a folder holds DICOM files, judged by their first bytes."""
    return any(map(is_dicom, _entries(folder)))


def volumes_in(folder: Path) -> tuple[list[FoundVolume], list[str]]:
    """Find the volumes in a folder; folders inside it are not searched.

    Localisers, secondary captures and segmentations count only where there is nothing else.

    Returns:
        The volumes, in the order of their series and files; and why others are passed over.
    """
    stacks, passed_over = _volumes(folder)
    found = []
    names: set[str] = set()
    for stack in stacks:
        if len(stacks) == 1:
            found.append(FoundVolume(folder, folder.name, _describe(stack)))
            continue
        is_one_file = len(stack.files) == 1
        name = stem_of(stack.files[0]) if is_one_file else _mask_name(stack)
        name = _unused(name, names)
        names.add(name)
        found.append(FoundVolume(stack.files[0], name, _describe(stack), is_one_file))
    return found, passed_over


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)`, rescaled (CT: to HU), and the affine to mm in RAS+.

    Args:
        path: a folder that holds one volume, or any file of a volume.

    Raises:
        DataError: if it cannot be read.
    """
    stack = stack_of(path)
    affine = stack.affine()
    check_header(path, stack.shape, affine)
    for warning in stack.warnings():
        _logger.warning("%s: %s", path, warning)
    if path.is_dir():
        for reason in _headers(path)[1]:  # each may have been a slice of the volume
            _logger.warning("%s; it is passed over", reason)
    if isinstance(stack, LabelStack):
        return stack.labels()[None], affine
    return read_values(stack.frames), affine


def read_segmentation(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    labels: Mapping[str, int] | None = None,
) -> np.ndarray:
    """Read a DICOM segmentation as label ids `(x, y, z)` on the grid of its scan.

    A segmentation holds only slices where it found something.

    Args:
        path: the path of the segmentation, or of a folder with it alone.
        shape: the shape of the scan, (x, y, z).
        affine: the affine of the scan, to mm in RAS+.
        labels: name -> id; where all segments have such names these tell their ids.

    Raises:
        DataError: if it is none, or does not lie on the voxels of the scan.
    """
    stack = stack_of(path)
    if not isinstance(stack, LabelStack):
        raise DataError(f"{path}: is no DICOM segmentation")
    return on_grid(stack, shape, affine, labels)


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read the shape `(x, y, z)` and the affine to mm in RAS+, from the headers alone.

    Raises:
        DataError: if the folder or file is not one stack of slices.
    """
    stack = stack_of(path)
    return stack.shape, stack.affine()


def files(path: Path) -> list[Path]:
    """Return the files of the slices, in their order; of a structure set the file itself."""
    file = only_file(path)
    is_structure_set = file.is_file() and is_dicom(file) and open_header(file).kind == STRUCTURE_SET
    return [file] if is_structure_set else stack_of(path).files


def _entries(folder: Path) -> list[Path]:
    """Return the visible entries of a folder, sorted; none where it cannot be searched."""
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []
    return [folder / name for name in names if not name.startswith(".")]


def _headers(folder: Path) -> tuple[list[Header], list[str], list[str]]:
    """Read the headers of a folder's files; also why some are damaged, and the other files."""
    headers = []
    others = []
    damaged = []
    for path in _entries(folder):
        if path.is_dir():
            continue
        if not is_dicom(path):
            others.append(path.name)
            continue
        try:
            headers.append(open_header(path))
        except DataError as error:
            damaged.append(str(error))
    return headers, damaged, others


def _volumes(folder: Path) -> tuple[list[Stack], list[str]]:
    """Return the volumes of a folder in the order of their series; also what is passed over."""
    headers, passed_over, others = _headers(folder)
    if others:
        files_there = count(len(others), "file")
        passed_over.append(f"{folder}: {files_there} not of DICOM, such as {_clean(others[0])}")
    for header in headers:
        if not header.frames:
            passed_over.append(f"{header.path}: {_no_frames(header)}")
    stacks = _stacks(headers)
    stacks.sort(key=lambda stack: (stack.first.header.number, stack.files[0].name))
    scans = [stack for stack in stacks if not _lesser(stack)]
    if not scans:
        return stacks, passed_over
    for stack in stacks:
        if _lesser(stack):
            passed_over.append(f"{stack.files[0]}: {_lesser(stack)} ({_describe(stack)})")
    return scans, passed_over


def _stacks(headers: Sequence[Header]) -> list[Stack]:
    """Return the volumes of some files, of which each segmentation is one."""
    stacks = split(header for header in headers if not is_segmentation(header))
    for header in headers:
        if is_segmentation(header) and header.frames:
            stacks.append(LabelStack(header.frames))
    return stacks


def _no_frames(header: Header) -> str:
    """Return why a file holds no frame of a volume."""
    if header.trouble:
        return header.trouble
    if not header.is_image:
        return f"holds no scan ({header.kind_name or 'unknown class'})"
    return f"holds {header.count} frames without a position of each"


def _lesser(stack: Stack) -> str:
    """Return why a stack is no scan where others are; empty if it is one."""
    header = stack.first.header
    if header.localiser:
        return "is a localiser"
    if header.kind.startswith(CAPTURES) and len(stack.frames) == 1:
        return "is a secondary capture"
    if is_segmentation(header):
        return "is a segmentation"
    return ""


def stack_of(path: Path) -> Stack:
    """Return the volume that a folder holds, or that a file belongs to.

    Raises:
        DataError: if a folder holds none or several, or a file belongs to none.
    """
    return _find_in_folder(path) if path.is_dir() else _find_of_file(path)


def _find_in_folder(folder: Path) -> Stack:
    stacks, passed_over = _volumes(folder)
    if len(stacks) == 1:
        return stacks[0]
    if stacks:
        listed = [f"{stack.files[0].name} ({_describe(stack)})" for stack in stacks[:LISTED]]
        more = ", ..." if len(stacks) > LISTED else ""
        raise DataError(
            f"{folder}: holds {len(stacks)} DICOM volumes; give one by a file of it: "
            f"{', '.join(listed)}{more}"
        )
    reason = passed_over[0] if passed_over else f"{folder}: it holds no DICOM files"
    raise DataError(f"{folder}: holds no DICOM volume ({reason})")


def _find_of_file(path: Path) -> Stack:
    header = open_header(path)
    if not header.frames:
        raise DataError(f"{path}: {_no_frames(header)}")
    if is_segmentation(header):
        return LabelStack(header.frames)
    headers, _, _ = _headers(path.parent)
    series = [other for other in headers if other.series == header.series]
    found = []
    for stack in _stacks(series):
        if path.name in {file.name for file in (*stack.files, *stack.copies)}:
            found.append(stack)
    if len(found) > 1:
        parts = "; ".join(map(_describe, found[:LISTED]))
        raise DataError(
            f"{path}: holds {len(found)} volumes in one file ({parts}); "
            "convert it with dcm2niix and give one of the results"
        )
    return found[0]


def _describe(stack: Stack) -> str:
    """Return a line on a volume for people."""
    header = stack.first.header
    parts = [_clean(header.description) or header.kind_name, count(stack.shape[2], "slice")]
    for name, value in stack.traits:
        parts.append(f"{name} {_clean(_as_text(value))}")
    return ", ".join(parts)


def _mask_name(stack: Stack) -> str:
    """Return a name for a volume's mask, of letters, digits and `-`."""
    header = stack.first.header
    words = [f"{header.number:03d}", header.description]
    for name, value in stack.traits:
        words.append(f"{name}-{_as_text(value)}")
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)).strip("-.")[:NAME_LENGTH]


def _unused(name: str, names: Container[str]) -> str:
    """Return a name, or the first with a number that is not in use yet."""
    for number in itertools.count(2):
        if name not in names:
            break
        name = f"{name.removesuffix(f'-{number - 1}')}-{number}"
    return name


def _as_text(value: object) -> str:
    """Return the value of a tag as text: numbers without zeros, parts joined by `/`."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(map(_as_text, value))
    return str(value)


def _clean(text: str) -> str:
    """Return a text of a file without control characters, and not too long."""
    shown = [sign if sign.isprintable() else " " for sign in text[:64]]
    return " ".join("".join(shown).split())
