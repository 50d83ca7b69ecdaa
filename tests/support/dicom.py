"""DICOM files that pydicom writes, and what dcm2niix makes of them."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PET, DX = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.1.1"
CAPTURE, SEG = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.66.4"
ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
MODALITY = {CT: "CT", MR: "MR", PET: "PT", DX: "DX", ENHANCED_CT: "CT", ENHANCED_MR: "MR"}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ORIGIN, SPACING, STEP = (-31.5, 12.25, 100.0), (1.3, 0.7), 2.5


def data_set(pixels: np.ndarray, kind: str = CT, bits: int | None = None, **tags: Any) -> Dataset:
    """A data set of `(rows, columns)`, `(rows, columns, 3)` or, with `NumberOfFrames`, frames first."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = kind, generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.8", "1.2.7"
    data.PatientName, data.PatientID, data.SeriesNumber, data.InstanceNumber = "A^B", "1", 1, 1
    data.Modality, data.PatientPosition = MODALITY.get(kind, "OT"), "HFS"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    colour = pixels.ndim - ("NumberOfFrames" in tags) == 3
    rows_columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    data.Rows, data.Columns = rows_columns
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    little = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    data.PixelData = little + b"\0" * (len(little) % 2)
    for name, value in tags.items():
        if value is not None:
            setattr(data, name, value)
        elif name in data:
            delattr(data, name)
    return data


def place(number: int, step: Sequence[float] = (0, 0, STEP), **tags: Any) -> dict[str, Any]:
    """The tags of a slice's place."""
    position = [round(o + number * s, 6) for o, s in zip(ORIGIN, step, strict=True)]
    return {
        "ImagePositionPatient": position, "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": list(SPACING), "SliceThickness": STEP, "InstanceNumber": number + 1,
    } | tags  # fmt: skip


def save(path: Path, data: Dataset, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True, **options)
    return path


def save_series(folder: Path, voxels: np.ndarray, kind: str = CT, prefix: str = "", **tags: Any) -> Path:  # fmt: skip
    """A series of `(columns, rows, slices)`; a tag that is a function is called with the number."""
    for number in range(voxels.shape[2]):
        own = {name: value(number) if callable(value) else value for name, value in tags.items()}
        data = data_set(voxels[:, :, number].T, kind, **place(number, **own))
        save(folder / f"{prefix}{number:03d}.dcm", data)
    return folder


def item(**tags: Any) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def enhanced(voxels: np.ndarray, kind: str, frames: Sequence[dict[str, Any]], **tags: Any) -> Dataset:  # fmt: skip
    """An enhanced file of `(columns, rows, frames)`; each entry of `frames` is the sequences of one."""
    pixels = voxels.transpose(2, 1, 0)
    data = data_set(pixels, kind, NumberOfFrames=len(frames), **tags)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
        PixelMeasuresSequence=[
            item(PixelSpacing=list(SPACING), SliceThickness=STEP, SpacingBetweenSlices=STEP)
        ],
    )
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [item(**frame) for frame in frames]
    return data


def at(number: int) -> dict[str, Any]:
    """The functional groups of a frame's place."""
    content = item(
        StackID="1", InStackPositionNumber=number + 1, DimensionIndexValues=[1, number + 1]
    )
    position = item(ImagePositionPatient=place(number)["ImagePositionPatient"])
    return {"FrameContentSequence": [content], "PlanePositionSequence": [position]}


def rescaled(path: Path) -> np.ndarray:
    """The values of one file by pydicom's own rescaling, (columns, rows)."""
    data = pydicom.dcmread(path, force=True)
    return pydicom.pixels.apply_modality_lut(data.pixel_array, data).T


def converted(folder: Path, output: Path) -> list[nib.Nifti1Image]:
    """What dcm2niix makes of a folder, the first with the most slices."""
    tool = shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which("dcm2niix")  # fmt: skip
    if tool is None:
        pytest.skip("needs dcm2niix")
    output.mkdir()
    subprocess.run([tool, "-z", "n", "-b", "n", "-o", output, folder], check=True, timeout=60, capture_output=True)  # fmt: skip
    images = list(map(nib.load, sorted(output.glob("*.nii"))))
    return sorted(images, key=lambda image: -image.shape[2])


def check_same_world(voxels: np.ndarray, affine: np.ndarray, image: Any, tolerance: float = 1e-3) -> None:  # fmt: skip
    """Each voxel `(x, y, z)` has the value that a NIfTI image has at the same millimetres."""
    there = np.linalg.inv(image.affine) @ affine
    indices = np.indices(voxels.shape).reshape(3, -1)
    found = there[:3, :3] @ indices + there[:3, 3:]
    nearest = np.rint(found).astype(int)
    assert np.abs(found - nearest).max() < tolerance
    other = np.asanyarray(image.dataobj)
    if other.ndim == 4:
        other = other[..., 0]  # dcm2niix keeps copies as a second volume
    assert np.prod(voxels.shape) == np.prod(other.shape[:3])
    assert np.allclose(other[tuple(nearest)], voxels.ravel(), rtol=1e-6, atol=1e-4)
