"""DICOM segmentations as label maps, beside a DICOM series."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from support.datasets import read_dataset

from segpipe.data.inspection import inspect_case
from segpipe.errors import DataError
from segpipe.io.content import content_files
from segpipe.io.label_maps import load_label_of
from segpipe.io.volumes import read_grid

CT, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"
SHAPE = (9, 7, 6)  # columns, rows, slices
SPACING = (0.8, 1.5)  # between rows, between columns
STEP = 2.5


def new(kind: str, pixels: bytes, bits: int) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = kind, generate_uid()
    data.SeriesInstanceUID = f"1.2.{len(kind)}"
    data.Columns, data.Rows, data.SamplesPerPixel = SHAPE[0], SHAPE[1], 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit = bits - 1
    data.PixelData = pixels + b"\0" * (len(pixels) % 2)
    return data


def write_series(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(SHAPE[2]):
        pixels = rng.integers(0, 1000, SHAPE[1::-1], np.uint16)
        data = new(CT, pixels.tobytes(), 16)
        data.InstanceNumber, data.PixelSpacing = number + 1, list(SPACING)
        data.ImagePositionPatient = [-3.0, 5.0, 10 + STEP * number]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.SliceThickness = STEP
        data.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def write_segmentation(
    path: Path, label: np.ndarray, kind: str = "BINARY", shift: float = 0, flip: bool = False
) -> Path:
    """Write a label map `(columns, rows, slices)`: frames in any order, empty ones left out."""
    frames = []
    images = []
    for segment in (2, 1):
        for number in reversed(range(label.shape[2])):
            image = np.equal(label[:, :, number].T, segment)
            if image.any():
                item = Dataset()
                position = Dataset()
                position.ImagePositionPatient = [-3.0 + shift, 5.0, 10 + STEP * number]
                if flip:
                    image = image[:, ::-1]
                    position.ImagePositionPatient[0] += SPACING[1] * (SHAPE[0] - 1)
                item.PlanePositionSequence = [position]
                named = Dataset()
                named.ReferencedSegmentNumber = segment
                item.SegmentIdentificationSequence = [named]
                frames.append(item)
                images.append(image)
    stacked = np.array(images)
    binary = np.packbits(stacked.ravel(), bitorder="little").tobytes()
    content = binary if kind == "BINARY" else (stacked * np.uint8(200)).tobytes()
    data = new(SEG, content, 1 if kind == "BINARY" else 8)
    data.SegmentationType, data.NumberOfFrames = kind, len(frames)
    data.PerFrameFunctionalGroupsSequence = frames
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), STEP
    orientation.ImageOrientationPatient = [-1 if flip else 1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    data.SharedFunctionalGroupsSequence = [shared]
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def drawn() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 1:4, 1] = 1
    label[2:6, 1:5, 4] = 1
    label[3, 2, 4] = 2
    return label


@pytest.mark.parametrize("kind", ["BINARY"])
@pytest.mark.parametrize("flip", [False, True])
def test_segments_are_ids_on_the_grid_of_the_scan(tmp_path: Path, kind: str, flip: bool) -> None:
    """The truth is `drawn`, in the order of the scan's voxels, which pydicom has as rows, columns."""
    series = write_series(tmp_path / "images/ann")
    file = write_segmentation(tmp_path / "labels/ann.dcm", drawn(), kind, flip=flip)
    grid = read_grid(series)
    volume = load_label_of(file, grid)
    assert np.array_equal(volume.numpy()[0], drawn())
    assert np.array_equal(volume.affine, grid.affine)
    assert content_files([file]) == [file]
    (case,) = read_dataset("folder", tmp_path).cases
    found: Any = inspect_case(case, None)
    assert found.findings == []
    assert found.sizes[:, :2].tolist() == [[1, 24], [2, 1]]


def test_a_segmentation_of_another_scan_is_refused(tmp_path: Path) -> None:
    series = write_series(tmp_path / "images/ann")
    file = write_segmentation(tmp_path / "labels/ann.dcm", drawn(), shift=0.7)
    with pytest.raises(DataError, match="its voxels are not those of the scan"):
        load_label_of(file, read_grid(series))
    shutil.rmtree(tmp_path / "labels")
    data = pydicom.dcmread(write_segmentation(tmp_path / "labels/ann.dcm", drawn()))
    data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.6, 3.0]
    data.save_as(file)
    (found,) = inspect_case(read_dataset("folder", tmp_path).cases[0], None).findings
    assert found.kind == "unreadable"
    assert "its voxels are not those of the scan" in found.problem
