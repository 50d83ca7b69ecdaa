"""Masks as DICOM segmentations and structure sets, written, read back, and used as labels."""

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import uid
from pydicom.sr._concepts_dict import concepts
from support.checkpoints import write_checkpoint
from support.config import composed
from support.datasets import read_dataset
from support.dicom import ENHANCED_MR, MR, at, enhanced, save, save_series

from segpipe.batch import SOME_FAILED, predict_batch
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.data.inspection import inspect_case
from segpipe.errors import ConfigError, DataError
from segpipe.io.dicom import read_grid as read_dicom_grid
from segpipe.io.dicom_contours import fill, trace
from segpipe.io.dicom_rtstruct_writer import write_structures
from segpipe.io.dicom_seg_writer import write_segmentation
from segpipe.io.dicom_source import Product, Source
from segpipe.io.label_codes import TABLE, UNKNOWN_LABEL, code_of
from segpipe.io.label_maps import load_label_of
from segpipe.io.volumes import read_grid
from segpipe.prediction.record_store import RecordStore

LABELS = {"liver": 1, "left kidney": 4, "blob": 9}
CODES = {name: code_of(name) for name in LABELS}
PRODUCT = Product("0.2.0", "unet", "ab" * 32)
SHAPE = (12, 10, 5)
NAMES = {"background": 0, **LABELS}


def drawn(shape: tuple[int, ...]) -> np.ndarray:
    """A mask with a hole, voxels that touch by their corners and the edge, and an empty slice."""
    mask = np.zeros(shape, np.uint8)
    mask[1:8, 2:8, 1:3] = 1
    mask[3:5, 4:6, 1] = 0
    mask[4, 5, 1] = 1
    mask[9:, :2, 3] = 4
    mask[8, 2, 3] = 4
    mask[10, 8, 1:] = 9
    return mask


def series(folder: Path, shape: tuple[int, ...] = SHAPE, **tags: Any) -> Path:
    voxels = np.random.default_rng(0).integers(0, 900, shape).astype(np.uint16)
    return save_series(folder, voxels, MR, **{"FrameOfReferenceUID": "1.2.9", **tags})


def real_series(real_data: Path, name: str, folder: Path) -> Path:
    """A copy of a real series with the tag that whoever made it public has taken away."""
    folder.mkdir()
    for path in sorted((real_data / "dicom/series" / name / "001").iterdir()):
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID = "1.2.9"
        data.save_as(folder / path.name)
    return folder


def check_segmentation(folder: Path, mask: np.ndarray, file: Path) -> None:
    """Its voxels are the mask's by highdicom's reader and, for a binary one, by SimpleITK's."""
    source = Source(folder)
    seg = hd.seg.segread(file)
    uids = [data.SOPInstanceUID for data in source.datasets]
    found = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    numbers = seg.segment_numbers
    ids = {seg.get_segment_description(number).segment_label: number for number in numbers}
    expected = np.zeros_like(mask)
    for name, label in LABELS.items():
        expected[mask == label] = ids[name]
    assert np.array_equal(found.transpose(2, 1, 0), expected)
    if seg.SegmentationType == "BINARY":
        frames = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
        heights = [data.ImagePositionPatient for data in source.datasets]
        again = np.zeros_like(expected)
        for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
            place = group.PlanePositionSequence[0].ImagePositionPatient
            number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            again[:, :, heights.index(place)][frame.T > 0] = number
        assert np.array_equal(again, expected)


@pytest.mark.parametrize(
    ("name", "kind"), [("generic", "binary"), ("siemens", "binary"), ("siemens", "labelmap")]
)
def test_a_real_series_gets_its_mask_back(
    tmp_path: Path, real_data: Path, name: str, kind: Any
) -> None:
    folder = real_series(real_data, name, tmp_path / "series")
    grid = read_grid(folder)
    mask = drawn(grid.shape)
    file = tmp_path / "seg.dcm"
    write_segmentation(mask, LABELS, CODES, Source(folder), file, PRODUCT, kind)
    check_segmentation(folder, mask, file)
    outlines = tmp_path / "rs.dcm"
    write_structures(mask, LABELS, CODES, Source(folder), outlines, PRODUCT)
    for written in (file, outlines):
        read = load_label_of(written, grid, labels=NAMES)
        assert np.array_equal(read.numpy()[0], mask)


def test_a_series_without_its_frame_of_reference_is_one_line(real_data: Path) -> None:
    with pytest.raises(DataError, match=r"001: lacks the tag FrameOfReferenceUID, [^\n]+$"):
        Source(real_data / "dicom/series/siemens/001")


def test_a_series_packed_as_jpeg_2000_gets_its_mask_back(tmp_path: Path) -> None:
    """It lacks tags that may be empty, too."""
    shape = (40, 36, 5)
    missing = {"PatientSex": None, "SliceThickness": None, "StudyDate": None}
    folder = series(tmp_path / "series", shape, **missing)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
        data.save_as(path)
    mask = drawn(shape)
    write_segmentation(mask, LABELS, CODES, Source(folder), tmp_path / "seg.dcm", PRODUCT)
    check_segmentation(folder, mask, tmp_path / "seg.dcm")


def test_frames_of_an_enhanced_file_keep_their_places(tmp_path: Path) -> None:
    """Its frames lie from the top to the bottom, against the axis of the volume."""
    voxels = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.uint16)
    places = [at(number) for number in reversed(range(SHAPE[2]))]
    data = enhanced(voxels, ENHANCED_MR, places, FrameOfReferenceUID="1.2.9")
    folder = save(tmp_path / "series/file.dcm", data).parent
    mask = drawn(SHAPE)
    write_segmentation(mask, LABELS, CODES, Source(folder), tmp_path / "seg.dcm", PRODUCT)
    write_structures(mask, LABELS, CODES, Source(folder), tmp_path / "rs.dcm", PRODUCT)
    for name in ("seg.dcm", "rs.dcm"):
        read = load_label_of(tmp_path / name, read_grid(folder), labels=NAMES)
        assert np.array_equal(read.numpy()[0], mask)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    found = seg.get_pixels_by_source_frame(
        data.SOPInstanceUID,
        range(1, SHAPE[2] + 1),
        segment_numbers=[1],
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(found[::-1, :, :, 0].transpose(2, 1, 0), mask == 1)


def test_what_a_file_says_beside_the_mask(tmp_path: Path) -> None:
    folder = series(tmp_path / "series")
    write_segmentation(drawn(SHAPE), LABELS, CODES, Source(folder), tmp_path / "seg.dcm", PRODUCT)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    first = Source(folder).first
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
    assert len(referenced.ReferencedInstanceSequence) == SHAPE[2]
    assert seg.FrameOfReferenceUID == first.FrameOfReferenceUID
    kidney = seg.get_segment_description(2)
    assert kidney.segmented_property_type.value == "64033007"
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert side.CodeMeaning == "Left"
    assert seg.get_segment_description(3).segmented_property_type.meaning == "Unknown"
    algorithm = kidney.algorithm_identification[0]
    assert algorithm.AlgorithmParameters == f"checkpoint_sha256={PRODUCT.checkpoint}"
    uids = [seg.get_segment_description(number).tracking_uid for number in (1, 2, 3)]
    assert len(set(uids)) == 3
    write_structures(drawn(SHAPE), LABELS, CODES, Source(folder), tmp_path / "rs.dcm", PRODUCT)
    structures = pydicom.dcmread(tmp_path / "rs.dcm")
    assert [item.ROIName for item in structures.StructureSetROISequence] == list(LABELS)
    assert structures.StudyInstanceUID == first.StudyInstanceUID
    images = {path.SOPInstanceUID for path in Source(folder).datasets}
    for contours in structures.ROIContourSequence:
        for contour in contours.ContourSequence:
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in images


def test_an_empty_mask_is_a_file_too(tmp_path: Path) -> None:
    folder = series(tmp_path / "series")
    empty = np.zeros(SHAPE, np.uint8)
    write_segmentation(empty, LABELS, CODES, Source(folder), tmp_path / "seg.dcm", PRODUCT)
    write_structures(empty, LABELS, CODES, Source(folder), tmp_path / "rs.dcm", PRODUCT)
    assert not load_label_of(tmp_path / "seg.dcm", read_grid(folder)).numpy().any()
    assert len(pydicom.dcmread(tmp_path / "rs.dcm").StructureSetROISequence) == 3


def test_segments_and_structures_are_labels_to_train_on(tmp_path: Path) -> None:
    """The names tell the ids where the dataset declares such; else the numbers do."""
    for name in ("ann", "ben"):
        series(tmp_path / "images" / name)
    (tmp_path / "labels").mkdir()
    mask = drawn(SHAPE)
    ann = Source(tmp_path / "images/ann")
    ben = Source(tmp_path / "images/ben")
    write_segmentation(mask, LABELS, CODES, ann, tmp_path / "labels/ann.dcm", PRODUCT)
    write_structures(mask, LABELS, CODES, ben, tmp_path / "labels/ben/rs.dcm", PRODUCT)
    cases = read_dataset("folder", tmp_path).cases
    for case in cases:
        found = inspect_case(case, NAMES)
        assert found.findings == []
        assert found.ids.tolist() == [0, 1, 4, 9]
    assert inspect_case(cases[0], None).ids.tolist() == [0, 1, 2, 3]
    few = {"background": 0, "blob": 1}
    assert inspect_case(cases[1], few).ids.tolist() == [0, 1]


def test_outlines_are_filled_by_the_even_odd_rule() -> None:
    """A square of 8 x 8 mm with a hole of 4 x 4 mm on voxels of 2 mm; 16 - 4 voxels."""
    affine = np.diag([-2.0, -2, 2, 1])
    square = np.array([[0, 0], [8, 0], [8, 8], [0, 8]]) - 1.0
    hole = np.array([[2, 2], [6, 2], [6, 6], [2, 6]]) - 1.0
    outlines = [np.column_stack([corners, np.full(4, 2.0)]) for corners in (square, hole)]
    inside = fill(Path("rs.dcm"), outlines, (6, 6, 3), affine)
    assert inside.sum() == 12
    assert inside[:, :, 1].sum() == 12
    assert not inside[1:3, 1:3, 1].any()
    assert inside[0:4, 0:4, 1].sum() == 12
    with pytest.raises(DataError, match="lies between the slices of the scan, at 0.5"):
        fill(Path("rs.dcm"), [outlines[0] - [0, 0, 1.0]], (6, 6, 3), affine)
    with pytest.raises(DataError, match="lies outside of the scan"):
        fill(Path("rs.dcm"), [outlines[0] + [0, 0, 4.0]], (6, 6, 3), affine)


def test_outlines_of_noise_enclose_it_exactly() -> None:
    mask = np.random.default_rng(0).random((40, 31)) < 0.5
    outlines = [np.column_stack([line, np.zeros(len(line))]) for line in trace(mask)]
    for number, line in enumerate(outlines):
        outlines[number] = (line * [-1, -1, 1]).round(4)
    inside = fill(Path("rs.dcm"), outlines, (40, 31, 1), np.eye(4))
    assert np.array_equal(inside[:, :, 0], mask)


def test_a_damaged_structure_set_is_one_line(tmp_path: Path) -> None:
    folder = series(tmp_path / "series")
    file = tmp_path / "rs.dcm"
    write_structures(drawn(SHAPE), LABELS, CODES, Source(folder), file, PRODUCT)
    data = pydicom.dcmread(file)
    data.ROIContourSequence[0].ContourSequence[0].ContourData = [1.0, 2.0, 3.0, 4.0]
    data.save_as(file)
    with pytest.raises(DataError, match="corners are not three numbers each"):
        load_label_of(file, read_grid(folder))
    del data.ROIContourSequence
    data.save_as(file)
    with pytest.raises(DataError, match="holds no closed outline"):
        load_label_of(file, read_grid(folder))
    shape, affine = read_dicom_grid(folder)
    assert shape == SHAPE
    assert affine.shape == (4, 4)


def test_the_table_of_codes_is_that_of_the_standard() -> None:
    known: set[tuple[str, str]] = set()
    for entry in concepts["SCT"].values():
        for value, (meaning, _) in entry.items():
            known.add((value, meaning))
    rows = TABLE.read_text().splitlines()[1:]
    assert len(rows) > 80
    for row in rows:
        _, value, meaning, _ = row.split(",")
        assert (value, meaning) in known


def test_codes_of_labels_by_name() -> None:
    assert code_of("Liver").concept.value == "10200004"
    assert code_of("kidney_right").side is not None
    assert code_of("gleep") == UNKNOWN_LABEL
    given = {"gleep": ["99X", "1", "Gleep"], "mass": ["SCT", "108369006", "Neoplasm"]}
    assert code_of("gleep", given).concept.meaning == "Gleep"
    assert code_of("gleep", given).category.meaning == "Unknown"
    assert code_of("mass", given).category.meaning == "Morphologically Abnormal Structure"


@pytest.mark.parametrize(
    ("codes", "line"),
    [
        ({"organ": ["SCT", "1"]}, "needs [scheme,value,meaning]"),
        ({"organ": ["SCT", "1", "m" * 65]}, "which DICOM does not take"),
        ({"lung": ["SCT", 1, "m"]}, "lung is no label"),
    ],
)
def test_wrong_codes_are_one_line(tmp_path: Path, codes: dict[str, list[Any]], line: str) -> None:
    series(tmp_path / "in")
    with pytest.raises(ConfigError) as caught:
        predict_batch(options(tmp_path, codes=codes))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_codes_of_a_training_are_of_its_labels() -> None:
    from support.plans import plan

    with pytest.raises(ConfigError, match=r"data\.codes\.lung: is no label"):
        plan("data.codes={lung:[SCT,39607008,Lung]}")
    made = composed("data.codes={liver:[SCT,10200004,Liver]}").data
    assert made.codes == {"liver": ["SCT", "10200004", "Liver"]}


def options(folder: Path, **changed: Any) -> Predict:
    given = {
        "checkpoint": str(write_checkpoint(folder / "some.ckpt")),
        "input": str(folder / "in"),
        "output": str(folder / "out"),
        "device": "cpu",
        "overlays": False,
        "save": ["dicom_seg", "rtstruct"],
    }
    return validate(Predict, defaults("predict") | given | changed)


def test_a_batch_writes_them_and_goes_on_where_it_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The scan that lacks a tag has its mask as NIfTI, and a line; the second call has no work."""
    good = series(tmp_path / "in/good")
    series(tmp_path / "in/lacking", FrameOfReferenceUID=None)
    given = options(tmp_path, save=["mask", "dicom_seg", "rtstruct"])
    caplog.set_level("WARNING", "segpipe")
    assert predict_batch(given) == SOME_FAILED
    out = tmp_path / "out"
    mask = load_label_of(out / "good.nii.gz", read_grid(good)).numpy()
    assert mask.any()
    for kind in ("dicom_seg", "rtstruct"):
        file = out / kind / "good.dcm"
        assert np.array_equal(load_label_of(file, read_grid(good)).numpy(), mask)
        assert not (out / kind / "lacking.dcm").exists()
    assert (out / "lacking.nii.gz").is_file()
    lines = [line for line in caplog.messages if "lacks the tag FrameOfReferenceUID" in line]
    assert len(lines) == 2
    assert "no code is known of organ" in caplog.text
    record = RecordStore(out).records["lacking"]
    assert not record.failed
    assert len(record.warnings) >= 2
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.dcm")}
    assert predict_batch(given) == 0
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*.dcm")}
    changed = options(tmp_path, save=given.save, codes={"organ": ["SCT", 10200004, "Liver"]})
    predict_batch(changed)
    seg = hd.seg.segread(out / "dicom_seg/good.dcm")
    assert seg.get_segment_description(1).segmented_property_type.meaning == "Liver"


def test_the_mask_of_a_scan_that_allows_no_dicom_is_written_in_any_case(tmp_path: Path) -> None:
    series(tmp_path / "in/lacking", FrameOfReferenceUID=None)
    assert predict_batch(options(tmp_path)) == SOME_FAILED
    assert (tmp_path / "out/lacking.nii.gz").is_file()
