"""The DICOM files that a segmentation is of: what a new DICOM file must repeat of them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom import stack_of
from segpipe.io.dicom_file import import_pydicom, read_without_pixels
from segpipe.io.dicom_segments import LabelStack
from segpipe.io.dicom_stacks import Stack

NEEDED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "FrameOfReferenceUID",
)
# must be there, and may be empty
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


@dataclass(frozen=True)
class Product:
    """What wrote a DICOM file, and of what network.

    Attributes:
        version: the version of segpipe.
        network: name of the network.
        checkpoint: SHA-256 of the checkpoint's file; of several those of all, joined by `+`.
    """

    version: str
    network: str
    checkpoint: str


class Source:
    """The files of one volume, without their pixels.

    Args:
        path: a folder that holds one volume, or any file of a volume.

    Raises:
        DataError: if it is no DICOM scan, or lacks a tag that a DICOM file of it must have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: Stack = stack_of(path)
        if isinstance(self.stack, LabelStack) or not self.stack.first.placed:
            raise DataError(f"{path}: is no series of slices that lie in space")
        self.datasets = [_complete(file) for file in self.stack.files]
        for data in self.datasets:
            if not data.get("SliceThickness") and "SharedFunctionalGroupsSequence" not in data:
                data.SliceThickness = round(self.step_mm, 4)
        for keyword in NEEDED:
            if not self.first.get(keyword):
                raise DataError(
                    f"{path}: lacks the tag {keyword}, without which no viewer could lay a "
                    "segmentation over it; restore it by the program that exported the series"
                )

    @property
    def first(self) -> Any:
        """Return the data set of the first slice."""
        return self.datasets[0]

    @cached_property
    def step_mm(self) -> float:
        """Distance from one slice to the next, mm."""
        return float(np.linalg.norm(self.stack.affine()[:3, 2]))

    @property
    def frame_numbers(self) -> list[int]:
        """Return the number of each slice in its file, from 1, in the order of the volume."""
        return [frame.index + 1 for frame in self.stack.frames]

    def new_uid(self, *parts: str) -> str:
        """Return a unique id that depends on the first slice and on these texts alone."""
        entropy = [str(self.first.SOPInstanceUID), *parts]
        return str(import_pydicom().uid.generate_uid(entropy_srcs=entropy))


def _complete(file: Path) -> Any:
    """Return the data set of a file, with empty values where such are allowed."""
    data = read_without_pixels(file)
    for keyword in MAY_BE_EMPTY:
        if keyword not in data:
            setattr(data, keyword, "")
    return data
