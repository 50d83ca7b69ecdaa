"""DICOM: values as pydicom rescales them, places as dcm2niix has them, volumes told apart."""

import logging
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import uid
from scipy.spatial.transform import Rotation
from support.dicom import (
    CAPTURE,
    DX,
    ENHANCED_CT,
    ENHANCED_MR,
    MR,
    ORIGIN,
    PET,
    SEG,
    SPACING,
    STEP,
    at,
    check_same_world,
    converted,
    data_set,
    enhanced,
    item,
    place,
    rescaled,
    save,
    save_series,
)

from segpipe.errors import DataError
from segpipe.io import dicom
from segpipe.io.dicom_stacks import TOLERANCE
from segpipe.io.dicom_unpack import unpack
from segpipe.io.formats import format_of

RANDOM = np.random.default_rng(0)
VOXELS = RANDOM.integers(0, 4000, (9, 7, 5)).astype(np.uint16)
EXPECTED = np.diag([-SPACING[1], -SPACING[0], STEP, 1])
EXPECTED[:3, 3] = (-ORIGIN[0], -ORIGIN[1], ORIGIN[2])


def check_values(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every slice is what pydicom's own rescaling gives of its file."""
    voxels, affine = dicom.read(folder)
    shape, grid = dicom.read_grid(folder)
    assert voxels.shape[1:] == shape
    assert np.array_equal(affine, grid)
    files = dicom.files(folder)
    assert len(files) == shape[2]
    for number, file in enumerate(files):
        assert np.array_equal(voxels[0, :, :, number], rescaled(file))
    return voxels, affine


@pytest.mark.parametrize(
    "name",
    [
        "dicom/series/generic/001", "dicom/series/siemens/001", "faults/pet_first_slice_slope1",
        "faults/monochrome1_ct", "faults/single_ct_slice", "faults/two_series_one_folder", "faults/duplicate_all",
    ],
)  # fmt: skip
def test_real_series_are_as_pydicom_and_dcm2niix_have_them(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    voxels, affine = check_values(real_data / name)
    check_same_world(voxels[0], affine, converted(real_data / name, tmp_path / "nifti")[0])


def test_the_enhanced_file_and_the_radiograph_are_read(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "faults/enhanced_ct"
    voxels, affine = dicom.read(folder)
    check_same_world(voxels[0], affine, converted(folder, tmp_path / "nifti")[0])
    voxels, affine = dicom.read(real_data / "faults/dx_radiograph/000.dcm")
    assert voxels.shape == (1, 40, 48, 1)
    assert np.allclose(np.abs(np.diag(affine))[:2], 0.14)
    assert np.array_equal(voxels[0, :, :, 0], rescaled(real_data / "faults/dx_radiograph/000.dcm"))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"RescaleSlope": "1", "RescaleIntercept": "-1024"},
        {"RescaleSlope": "2.5", "RescaleIntercept": "-10.25"},
        {"RescaleSlope": lambda z: f"{1 + z}", "RescaleIntercept": lambda z: f"{-z}"},
        {"RescaleSlope": lambda z: f"{1 + z / 7:.6f}", "RescaleIntercept": "0", "kind": PET},
        {"RescaleSlope": "-1", "RescaleIntercept": "0"},
        {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "1", "RescaleIntercept": "-1024"},
        {"bits": 12},
    ],
)  # fmt: skip
def test_each_slice_is_rescaled_by_its_own_numbers(tmp_path: Path, tags: dict[str, Any]) -> None:
    folder = save_series(tmp_path / "scan", VOXELS, **tags)
    voxels, affine = check_values(folder)
    assert np.allclose(affine, EXPECTED, atol=1e-4)
    check_same_world(voxels[0], affine, converted(folder, tmp_path / "nifti")[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_whole_numbers_stay_whole(tmp_path: Path, dtype: type) -> None:
    limits = np.iinfo(dtype)
    voxels = RANDOM.integers(limits.min, limits.max, (9, 7, 3), dtype, endpoint=True)
    read, _ = check_values(save_series(tmp_path, voxels, MR))
    assert np.array_equal(read[0], voxels)
    assert read.dtype == dtype


def test_bits_that_are_not_of_the_value_are_left_out(tmp_path: Path) -> None:
    """Overlays above the stored bits, and numbers that do not begin at the lowest bit."""
    save_series(tmp_path / "above", VOXELS | 0xA000, bits=12)
    save_series(tmp_path / "below", VOXELS << 4 | 5, bits=12, HighBit=15)
    signed = (VOXELS.astype(np.int16) - 2000) & 0x0FFF
    save_series(tmp_path / "signed", signed, bits=12)
    assert np.array_equal(dicom.read(tmp_path / "above")[0][0], VOXELS & 0x0FFF)
    assert np.array_equal(dicom.read(tmp_path / "below")[0][0], VOXELS)
    assert np.array_equal(dicom.read(tmp_path / "signed")[0][0], VOXELS.astype(int) - 2000)


def test_a_modality_table_is_applied(tmp_path: Path) -> None:
    table = item(LUTDescriptor=[4096, 0, 16], ModalityLUTType="US")
    table.add_new(0x00283006, "OW", (np.arange(4096)[::-1] * 3).astype("<u2").tobytes())
    data = data_set(VOXELS[:, :, 0].T, DX, ModalityLUTSequence=[table], PixelSpacing=[1, 1])
    read, _ = dicom.read(save(tmp_path / "a.dcm", data))
    assert np.array_equal(read[0, :, :, 0], (4095 - VOXELS[:, :, 0].astype(int)) * 3)


def _packed(data: pydicom.Dataset, path: Path, syntax: str) -> None:
    if syntax == uid.ExplicitVRBigEndian:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    save(path, data)


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian],
)  # fmt: skip
def test_every_byte_order_is_read(tmp_path: Path, syntax: str) -> None:
    for number in range(5):
        data = data_set(
            VOXELS[:, :, number].T, **place(number, RescaleSlope=2, RescaleIntercept=-5)
        )
        _packed(data, tmp_path / f"{number}.dcm", syntax)
    voxels, affine = check_values(tmp_path)
    assert np.array_equal(voxels[0], VOXELS.astype(int) * 2 - 5)
    assert np.allclose(affine, EXPECTED, atol=1e-4)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1]
)
def test_packed_pixels_are_read(tmp_path: Path, syntax: str, signed: bool) -> None:
    voxels = RANDOM.integers(-2000 if signed else 0, 2000, (64, 48, 2))
    voxels = voxels.astype(np.int16 if signed else np.uint16)
    save_series(tmp_path / "raw", voxels)
    for path in sorted((tmp_path / "raw").iterdir()):
        _pack(path, tmp_path / "packed" / path.name, syntax)
    read, affine = dicom.read(tmp_path / "packed")
    assert np.array_equal(read[0], voxels)
    assert np.allclose(affine, EXPECTED, atol=1e-4)


def _pack(path: Path, target: Path, syntax: str) -> None:
    """Pack by pydicom, or by GDCM what pydicom cannot."""
    target.parent.mkdir(exist_ok=True)
    data = pydicom.dcmread(path)
    try:
        data.compress(syntax, generate_instance_uid=False)
    except (RuntimeError, NotImplementedError):
        gdcm = pytest.importorskip("gdcm")
        reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        names = {
            uid.JPEGLSLossless: "JPEGLSLossless",
            uid.JPEGLosslessSV1: "JPEGLosslessProcess14_1",
        }
        kind = getattr(gdcm.TransferSyntax, names[syntax])
        change.SetTransferSyntax(gdcm.TransferSyntax(kind))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    else:
        data.save_as(target)


def test_a_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_set(VOXELS[:, :, 0].T, **place(0))
    data.compress(uid.RLELossless)
    data.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    save(tmp_path / "a.dcm", data)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    with pytest.raises(DataError, match=r"packed as JPEG Lossless.*pip install .*segpipe\[dicom\]"):
        list(unpack([(str(tmp_path / "a.dcm"), [0], 1, 1000)]))


def test_a_decoder_that_crashes_takes_nothing_with_it(tmp_path: Path) -> None:
    """GDCM ends the process at a JPEG image of 127 bits."""
    save_series(tmp_path / "raw", VOXELS[:, :, :1])
    path = tmp_path / "packed/000.dcm"
    _pack(tmp_path / "raw/000.dcm", path, uid.JPEGLosslessSV1)
    content = path.read_bytes()
    frame = content.index(b"\xff\xc3")
    path.write_bytes(content[: frame + 4] + b"\x7f" + content[frame + 5 :])
    with pytest.raises(DataError, match="000.dcm: cannot be (unpacked|read)") as refused:
        dicom.read(path)
    assert "\n" not in str(refused.value)


def test_colour_becomes_channels(tmp_path: Path) -> None:
    colours = RANDOM.integers(0, 255, (7, 9, 3)).astype(np.uint8)
    read, affine = dicom.read(save(tmp_path / "a.dcm", data_set(colours, CAPTURE)))
    assert np.array_equal(read[..., 0], colours.transpose(2, 1, 0))
    assert np.allclose(np.abs(np.diag(affine)), 1)
    both = data_set(colours, CAPTURE)
    both.PlanarConfiguration = 1
    both.PixelData = colours.transpose(2, 0, 1).tobytes() + b"\0"
    assert np.array_equal(dicom.read(save(tmp_path / "b/b.dcm", both))[0], read)


def test_directions_are_those_of_the_patient(tmp_path: Path) -> None:
    turn = Rotation.from_euler("xyz", (9, -14, 20), degrees=True).as_matrix()
    step = (turn[:, 2] * STEP).tolist()
    folder = save_series(
        tmp_path / "scan",
        VOXELS,
        ImagePositionPatient=lambda z: place(z, step)["ImagePositionPatient"],
        ImageOrientationPatient=turn[:, :2].T.ravel().tolist(),
    )
    voxels, affine = check_values(folder)
    check_same_world(voxels[0], affine, converted(folder, tmp_path / "nifti")[0])


@pytest.mark.parametrize("tags", [{}, {"SpacingBetweenSlices": 4.0}])
def test_one_slice_is_as_thick_as_it_says(tmp_path: Path, tags: dict[str, Any]) -> None:
    folder = save_series(tmp_path / "scan", VOXELS[:, :, :1], **tags)
    voxels, affine = check_values(folder)
    check_same_world(voxels[0], affine, converted(folder, tmp_path / "nifti")[0])
    image = converted(folder, tmp_path / "again")[0]
    assert np.allclose(np.linalg.norm(affine[:3, 2]), np.linalg.norm(image.affine[:3, 2]))


def test_an_enhanced_file_has_values_and_places_per_frame(tmp_path: Path) -> None:
    order = (3, 0, 4, 1, 2)
    frames = []
    for number in order:
        slope = item(RescaleSlope=1 + number, RescaleIntercept=-number, RescaleType="HU")
        frames.append(at(number) | {"PixelValueTransformationSequence": [slope]})
    path = save(tmp_path / "scan/a.dcm", enhanced(VOXELS[:, :, order], ENHANCED_CT, frames))
    voxels, affine = dicom.read(tmp_path / "scan")
    assert np.array_equal(voxels[0], VOXELS.astype(int) * np.arange(1, 6) - np.arange(5))
    assert np.allclose(affine, EXPECTED, atol=1e-4)
    check_same_world(voxels[0], affine, converted(path.parent, tmp_path / "nifti")[0])
    assert dicom.files(path) == [path]


def test_the_volumes_of_one_enhanced_file_are_named(tmp_path: Path) -> None:
    frames = []
    for echo in (5.0, 12.0):
        for number in range(5):
            frames.append(at(number) | {"MREchoSequence": [item(EffectiveEchoTime=echo)]})
    twice = np.concatenate([VOXELS, VOXELS + 1], 2)
    path = save(tmp_path / "a.dcm", enhanced(twice, ENHANCED_MR, frames))
    with pytest.raises(DataError, match=r"2 volumes in one file .*EffectiveEchoTime 5; .*12\)"):
        dicom.read(path)


def found(folder: Path) -> list[str]:
    return [volume.description for volume in dicom.volumes_in(folder)[0]]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImageType": lambda n: ["ORIGINAL", "PRIMARY", "MP"[n]]}, ["ImageType ORIGINAL/PRIMARY/M", "ImageType ORIGINAL/PRIMARY/P"]),
        ({"EchoTime": lambda n: [4.5, 9.0][n]}, ["EchoTime 4.5", "EchoTime 9"]),
        ({"TemporalPositionIdentifier": lambda n: n + 1}, ["TemporalPositionIdentifier 1", "TemporalPositionIdentifier 2"]),
        ({"AcquisitionNumber": lambda n: n + 1}, ["AcquisitionNumber 1", "AcquisitionNumber 2"]),
        ({"DiffusionBValue": lambda n: 1000.0 * n}, ["DiffusionBValue 0", "DiffusionBValue 1000"]),
        ({}, ["image 1 of 2", "image 2 of 2"]),
    ],
)  # fmt: skip
def test_images_at_one_position_are_told_apart(
    tmp_path: Path, tags: dict[str, Callable[[int], Any]], expected: list[str]
) -> None:
    for number in range(2):
        own = {name: value(number) for name, value in tags.items()}
        # a time that differs from slice to slice tells nothing apart
        times = lambda z, n=number: f"1200{10 * n + z:02d}"  # noqa: E731
        save_series(
            tmp_path, VOXELS + number, MR, f"{number}-", InstanceNumber=lambda z, n=number: 10 * n + z,
            AcquisitionTime=times, **own,
        )  # fmt: skip
    assert [text.removeprefix("MR Image, 5 slices, ") for text in found(tmp_path)] == expected
    volumes, passed_over = dicom.volumes_in(tmp_path)
    assert not passed_over
    assert len({volume.name for volume in volumes}) == 2
    for number, volume in enumerate(volumes):
        assert np.array_equal(dicom.read(volume.path)[0][0], VOXELS + number)
    with pytest.raises(DataError, match=r"holds 2 DICOM volumes; give one by a file of it: 0-000"):
        dicom.read(tmp_path)
    # any file stands for its volume
    assert np.array_equal(dicom.read(tmp_path / "1-003.dcm")[0][0], VOXELS + 1)


def test_a_time_series_is_so_many_volumes(tmp_path: Path) -> None:
    for time in range(6):
        save_series(tmp_path, VOXELS + time, MR, f"{time}-", TemporalPositionIdentifier=time + 1)
    volumes, _ = dicom.volumes_in(tmp_path)
    assert [int(dicom.read(volume.path)[0][0, 0, 0, 0] - VOXELS[0, 0, 0]) for volume in volumes] == [0, 1, 2, 3, 4, 5]  # fmt: skip


def test_acquisitions_that_number_slices_do_not_tear_a_volume(tmp_path: Path) -> None:
    save_series(tmp_path, VOXELS, AcquisitionNumber=lambda z: z, EchoTime=lambda z: z % 2)
    assert found(tmp_path) == ["CT Image, 5 slices"]


def test_what_is_no_volume_is_passed_over_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_series(tmp_path, VOXELS, SeriesDescription="Thorax\n\x1b[31m =1")
    scout = data_set(VOXELS[:, :, 0].T, **place(0, SeriesInstanceUID="1.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))  # fmt: skip
    save(tmp_path / "scout.dcm", scout)
    save(tmp_path / "screen.dcm", data_set(VOXELS[:, :, 0].T, CAPTURE, SeriesInstanceUID="1.9.1"))
    for kind, name in (("1.2.840.10008.5.1.4.1.1.88.67", "dose"), ("1.2.840.10008.5.1.4.1.1.481.3", "rt")):  # fmt: skip
        data = data_set(VOXELS[:, :, 0].T, kind, PixelData=None, Rows=None, Columns=None)
        save(tmp_path / f"{name}.dcm", data)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "short.dcm").write_bytes(bytes(128) + b"DICM" + b"\2\0")
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "link.dcm").symlink_to("nowhere")
    (volume,), passed_over = dicom.volumes_in(tmp_path)
    assert volume.path == tmp_path
    assert volume.description == "Thorax [31m =1, 5 slices"
    text = "\n".join(passed_over)
    for reason in (
        "scout.dcm: is a localiser", "screen.dcm: is a secondary capture", "rt.dcm: holds no scan (RT Structure Set)",
        "dose.dcm: holds no scan (X-Ray Radiation Dose SR)", "files not of DICOM, such as", "short.dcm:",
    ):  # fmt: skip
        assert reason in text
    with caplog.at_level(logging.WARNING, "segpipe"):
        assert dicom.read(tmp_path)[0].shape == (1, *VOXELS.shape)
    (warning,) = caplog.messages  # what may have been a slice
    assert warning.startswith(f"{tmp_path / 'short.dcm'}: ")
    assert warning.endswith("; it is passed over")
    assert dicom.read(tmp_path / "screen.dcm")[0].shape == (1, 9, 7, 1)
    assert dicom.is_series(tmp_path)


def test_tags_that_only_describe_may_be_malformed(tmp_path: Path) -> None:
    folder = save_series(tmp_path, VOXELS, EchoTime=1)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for tag in (b"\x18\x00\x81\x00DS", b"\x20\x00\x11\x00IS", b"\x20\x00\x13\x00IS"):
            at_value = content.index(tag) + 8
            content = content[:at_value] + b"x" + content[at_value + 1 :]
        path.write_bytes(content)
    assert np.array_equal(dicom.read(folder)[0][0], VOXELS)


def test_frames_without_positions_are_refused(tmp_path: Path) -> None:
    film = data_set(VOXELS.transpose(2, 1, 0), CAPTURE, NumberOfFrames=5)
    path = save(tmp_path / "film.dcm", film)
    with pytest.raises(DataError, match="holds 5 frames without a position of each"):
        dicom.read(path)
    mosaic = data_set(VOXELS[:, :, 0].T, MR, **place(0), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])  # fmt: skip
    with pytest.raises(DataError, match="is a mosaic of slices; convert the series with dcm2niix"):
        dicom.read(save(tmp_path / "mosaic/a.dcm", mosaic))


def test_a_palette_becomes_colours(tmp_path: Path) -> None:
    image = data_set(VOXELS[:, :, 0].T.astype(np.uint8), CAPTURE, PhotometricInterpretation="PALETTE COLOR")  # fmt: skip
    entries = RANDOM.integers(0, 2**16, (3, 256)).astype(np.uint16)
    for number in range(3):
        image.add_new(0x00281101 + number, "US", [256, 0, 16])
        image.add_new(0x00281201 + number, "OW", entries[number].tobytes())
    read, _ = dicom.read(save(tmp_path / "a.dcm", image))
    assert np.array_equal(read[..., 0], entries[:, VOXELS[:, :, 0].astype(np.uint8)])


def test_copies_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_series(tmp_path, VOXELS)
    for path in sorted(tmp_path.iterdir())[:3]:
        shutil.copy(path, tmp_path / f"copy-{path.name}")
    data = pydicom.dcmread(tmp_path / "004.dcm")
    data.SOPInstanceUID = uid.generate_uid()
    save(tmp_path / "sent again.dcm", data)
    with caplog.at_level(logging.WARNING, "segpipe"):
        assert np.array_equal(check_values(tmp_path)[0][0], VOXELS)
    assert f"{tmp_path}: 4 of 9 files are copies" in caplog.text
    assert np.array_equal(dicom.read(tmp_path / "copy-000.dcm")[0][0], VOXELS)


@pytest.mark.parametrize("count", [2, 5])
def test_copies_may_have_numbers_of_their_own(tmp_path: Path, count: int) -> None:
    save_series(tmp_path, VOXELS)
    save_series(tmp_path, VOXELS[:, :, :count], prefix="again", InstanceNumber=lambda z: 100 + z)
    assert found(tmp_path) == ["CT Image, 5 slices"]
    assert np.array_equal(check_values(tmp_path)[0][0], VOXELS)


def test_other_images_at_a_position_are_refused(tmp_path: Path) -> None:
    save_series(tmp_path, VOXELS)
    save_series(tmp_path, VOXELS[:, :, :2] + 1, prefix="other", InstanceNumber=lambda z: 100 + z)
    with pytest.raises(DataError, match="up to 2 different images at one position"):
        dicom.read(tmp_path)


def test_the_tolerance_of_positions_is_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uneven = lambda z: [*ORIGIN[:2], STEP * z + (0.3 if z == 1 else 0)]  # noqa: E731
    save_series(tmp_path / "scan", VOXELS, ImagePositionPatient=uneven)
    with pytest.raises(DataError, match="the spacing is uneven; where up to 0.3 mm do not matter"):
        dicom.read(tmp_path / "scan")
    monkeypatch.setattr(TOLERANCE, "mm", 0.35)
    assert np.allclose(dicom.read(tmp_path / "scan")[1][2, 2], STEP)
    (tmp_path / "scan/001.dcm").unlink()
    with pytest.raises(DataError, match="1 missing between them"):
        dicom.read(tmp_path / "scan")


def test_positions_that_were_rounded_are_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rounded = lambda z: [*ORIGIN[:2], round(0.625 * z, 1)]  # noqa: E731
    many = RANDOM.integers(0, 99, (4, 4, 17)).astype(np.uint16)
    save_series(tmp_path / "scan", many, ImagePositionPatient=rounded)
    with caplog.at_level(logging.WARNING, "segpipe"):
        _, affine = check_values(tmp_path / "scan")
    assert np.isclose(affine[2, 2], 0.625)
    assert "as if their positions were rounded" in caplog.text
    (tmp_path / "scan/007.dcm").unlink()
    with pytest.raises(DataError, match="mm apart"):
        dicom.read(tmp_path / "scan")


def test_files_need_neither_preamble_nor_ending(tmp_path: Path) -> None:
    for number in range(5):
        data = data_set(VOXELS[:, :, number].T, **place(number))
        path = save(tmp_path / f"IM{number}", data)
        path.write_bytes(path.read_bytes()[132:])
    bare = data_set(VOXELS[:, :, 2].T, **place(2))
    del bare.file_meta
    bare.save_as(tmp_path / "IM2", implicit_vr=True, little_endian=True)
    assert dicom.is_series(tmp_path)
    for path in (tmp_path, tmp_path / "IM0", tmp_path / "IM2"):
        assert format_of(path) is not None
        assert np.array_equal(dicom.read(path)[0][0], VOXELS)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _bomb(path: Path) -> None:
    data = pydicom.dcmread(path)
    data.NumberOfFrames = 2_000_000_000
    save(path, data)


def _packed_bomb(path: Path) -> None:
    data = pydicom.dcmread(path)
    data.compress(uid.RLELossless)
    data.Rows = data.Columns = 30000
    save(path, data)


def _items_bomb(path: Path) -> None:
    content = path.read_bytes()
    pixels = content.index(b"\xe0\x7f\x10\x00")
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 300_000
    sequence = b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<I", len(items)) + items
    path.write_bytes(content[:pixels] + sequence + content[pixels:])


def _huge(path: Path) -> None:
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = 65535
    save(path, data)


def _zero_slope(path: Path) -> None:
    data = pydicom.dcmread(path)
    data.RescaleSlope = data.RescaleIntercept = 0
    save(path, data)


def _claims_a_gigabyte(path: Path) -> None:
    content = path.read_bytes()
    place_of_rows = content.index(b"\x28\x00\x10\x00US")
    path.write_bytes(content[:place_of_rows] + b"\x28\x00\x08\x00UT\0\0" + struct.pack("<I", 2**31))


def _deflated_bomb(path: Path) -> None:
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data.add_new(0x00211010, "UN", bytes(2**26))
    save(path, data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "cut short or damaged"),
        (_bomb, "declares 2000000000 frames"),
        (_huge, "65535x65535 pixels"),
        (_packed_bomb, "declares 1800000000 bytes of pixels, packed in"),
        (_items_bomb, "holds 300000 items of sequences"),
        (_zero_slope, "rescale slope 0"),
        (_claims_a_gigabyte, "holds no scan|cannot be read"),
        (_deflated_bomb, r"holds no scan \(CT Image\)"),
        (lambda path: path.write_bytes(b"text"), "is not a DICOM file; 4 bytes"),
        (lambda path: path.write_bytes(b""), "is not a DICOM file; 0 bytes"),
        (lambda path: path.unlink(), "no such file"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_line(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    path = save(tmp_path / "a.dcm", data_set(VOXELS[:, :, 0].T, **place(0)))
    damage(path)
    for reading in (dicom.read_grid, dicom.read):
        with pytest.raises(DataError, match=reason) as refused:
            reading(path)
        assert str(refused.value).startswith(str(path))
        assert "\n" not in str(refused.value)


def test_a_cut_slice_costs_its_own_volume_only(tmp_path: Path) -> None:
    save_series(tmp_path, VOXELS, prefix="a", SeriesInstanceUID="1.1")
    save_series(tmp_path, VOXELS, prefix="b", SeriesInstanceUID="1.2")
    _truncate(tmp_path / "a004.dcm")
    first, second = dicom.volumes_in(tmp_path)[0]
    with pytest.raises(DataError, match=r"a004.dcm: its header declares"):
        dicom.read(first.path)
    assert np.array_equal(dicom.read(second.path)[0][0], VOXELS)


def segmentation(labels: np.ndarray, kind: str = "BINARY", skip: bool = True) -> pydicom.Dataset:
    """A segmentation of `(x, y, z)` ids, with frames only where a segment is found."""
    masks, frames = [], []
    for number in range(1, labels.max() + 1) if kind == "BINARY" else [0]:
        for z in range(labels.shape[2]):
            mask = (labels[:, :, z] == number) if number else labels[:, :, z]
            if mask.any() or not skip:
                own = {"SegmentIdentificationSequence": [item(ReferencedSegmentNumber=number)]}
                masks.append(mask.astype(np.uint8))
                frames.append(at(z) | (own if number else {}))
    data = enhanced(np.stack(masks, -1), SEG, frames, SegmentationType=kind)
    if kind == "BINARY":
        data.BitsAllocated = data.BitsStored = 1
        data.HighBit = 0
        bits = np.stack(masks).transpose(0, 2, 1).ravel()
        data.PixelData = pydicom.pixels.pack_bits(bits)
    data.SeriesInstanceUID = "1.2.99"
    return data


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_is_a_label_map(tmp_path: Path, kind: str) -> None:
    labels = np.zeros(VOXELS.shape, int)
    labels[1:4, 2:5, 1] = 1
    labels[2:7, 1:3, 3] = 2
    scan = save_series(tmp_path / "scan", VOXELS)
    path = save(tmp_path / "scan/seg.dcm", segmentation(labels, kind))
    read, affine = dicom.read(path)
    assert np.array_equal(read[0], labels[:, :, 1:4])
    shape, grid = dicom.read_grid(scan)  # the segmentation beside it is passed over
    assert np.array_equal(dicom.read_segmentation(path, shape, grid), labels)
    assert np.allclose(affine[:3, 3], (grid @ [0, 0, 1, 1])[:3], atol=1e-4)
    assert "is a segmentation" in dicom.volumes_in(scan)[1][0]
    shifted = grid.copy()
    shifted[0, 3] += 0.3
    with pytest.raises(DataError, match="its voxels are not those of the scan"):
        dicom.read_segmentation(path, shape, shifted)
    with pytest.raises(DataError, match="has labels outside of the scan"):
        dicom.read_segmentation(path, (3, 3, 3), grid)


def test_segmentations_that_are_no_label_map_are_refused(tmp_path: Path) -> None:
    labels = np.zeros(VOXELS.shape, int)
    labels[1:4, 2:5, 1:3] = 1
    labels[6, 5, 1] = 2
    fractional = segmentation(labels)
    fractional.SegmentationType = "FRACTIONAL"
    with pytest.raises(DataError, match="of type FRACTIONAL; segpipe reads BINARY and LABELMAP"):
        dicom.read(save(tmp_path / "fractional.dcm", fractional))
    overlapping = segmentation(labels)
    last = overlapping.PerFrameFunctionalGroupsSequence[2].SegmentIdentificationSequence[0]
    first = overlapping.PerFrameFunctionalGroupsSequence[0]
    overlapping.PerFrameFunctionalGroupsSequence[
        2
    ].PlanePositionSequence = first.PlanePositionSequence
    overlapping.PerFrameFunctionalGroupsSequence[
        1
    ].PlanePositionSequence = first.PlanePositionSequence
    overlapping.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence = [last]
    with pytest.raises(DataError, match="segment 2 of frame 2 shares 9 voxels"):
        dicom.read(save(tmp_path / "overlapping.dcm", overlapping))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3), spacing=st.tuples(*[st.floats(0.2, 5)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3), shape=st.tuples(*[st.integers(1, 5)] * 3),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32]),
    slope=st.one_of(st.just(1.0), st.integers(1, 9).map(float), st.floats(0.001, 50)),
    intercept=st.one_of(st.just(0.0), st.floats(-3000, 3000).map(round).map(float)),
)  # fmt: skip
@example(
    angles=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), shape=(1, 1, 3),
    dtype=np.int32, slope=4.0, intercept=0.0,
)  # fmt: skip
def test_any_series_has_its_values_at_its_millimetres(
    tmp_path_factory: pytest.TempPathFactory, angles: Any, spacing: Any, origin: Any, shape: Any,
    dtype: type, slope: float, intercept: float,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("scan")
    limits = np.iinfo(dtype)
    voxels = np.random.default_rng(1).integers(limits.min, limits.max, shape, dtype)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    expected = np.eye(4)
    expected[:3, :3] = turn * spacing
    expected[:3, 3] = origin
    text = f"{slope:.8g}"
    save_series(
        folder, voxels, MR, ImagePositionPatient=lambda z: [f"{v:.10g}" for v in np.array(origin) + z * expected[:3, 2]],
        ImageOrientationPatient=[f"{v:.10f}" for v in turn[:, :2].T.ravel()], SliceThickness=f"{spacing[2]:.10g}",
        PixelSpacing=[f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"], RescaleSlope=text, RescaleIntercept=intercept,
    )  # fmt: skip
    read, affine = check_values(folder)
    assert np.allclose(read[0], voxels * float(text) + intercept, rtol=1e-12)
    assert np.abs(affine - np.diag([-1, -1, 1, 1]) @ expected).max() < 1e-3
    assert np.issubdtype(read.dtype, np.integer) == float(text).is_integer()
