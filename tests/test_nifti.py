"""NIfTI headers as scanners, converters and vandals leave them: read rightly, or refused in one line."""

import gzip
import logging
import resource
import struct
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.config import composed
from support.plans import plan

from segpipe.data.cases import Case
from segpipe.data.inspection import inspect_case
from segpipe.data.intensities import find_outlier
from segpipe.data.prepare import prepare_scan, prepare_volume
from segpipe.errors import DataError
from segpipe.geometry import Volume
from segpipe.io.formats import NIFTI
from segpipe.io.notes import collecting
from segpipe.io.objects import as_volume
from segpipe.io.volumes import load, load_label, read_grid, write_mask
from segpipe.prediction.maps import Maps
from segpipe.prediction.mask_warnings import warnings_for
from segpipe.prediction.predictor import Prediction
from segpipe.prediction.records import ScanRecord

RNG = np.random.default_rng(0)
VOXELS = RNG.integers(-900, 900, (6, 5, 4)).astype(np.int16)
AFFINE = np.array([[0.7, 0.1, 0, -31], [-0.1, 1.3, 0.2, 12], [0, -0.2, 2.5, 99], [0, 0, 0, 1.0]])
STRAIGHT = np.diag([0.75, 1.5, 2.5, 1.0])


def save(
    path: Path, voxels: np.ndarray = VOXELS, affine: np.ndarray = STRAIGHT, **fields: Any
) -> Path:
    image = nib.Nifti1Image(voxels, affine)
    unit = fields.pop("unit", None)
    if unit:
        image.header.set_xyzt_units(unit)
    nib.save(image, path)
    if fields:
        change(path, **fields)
    return path


def change(path: Path, **fields: Any) -> None:
    """Overwrite fields of a header on disk, without nibabel's checks."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        content = bytearray(file.read())
    header = np.frombuffer(content, nib.Nifti1Header.template_dtype, 1)[0].copy()
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.tobytes()
    with opener(path, "wb") as file:
        file.write(bytes(content))


@pytest.mark.parametrize(
    ("unit", "mm"), [("micron", 1e-3), ("mm", 1), ("meter", 1e3), ("unknown", 1)]
)
def test_units_are_honoured_and_the_mask_keeps_them(tmp_path: Path, unit: str, mm: float) -> None:
    path = save(tmp_path / "scan.nii.gz", affine=AFFINE, unit=unit)
    grid = read_grid(path)
    factor = np.diag([mm, mm, mm, 1])
    assert np.allclose(grid.affine, factor @ AFFINE, rtol=1e-6)
    assert np.allclose(as_volume(nib.load(path)).affine, grid.affine)
    write_mask((VOXELS > 0).astype(np.uint8), path, tmp_path / "mask.nii.gz", np.uint8)
    scan, mask = nib.load(path), nib.load(tmp_path / "mask.nii.gz")
    assert mask.header.get_xyzt_units() == scan.header.get_xyzt_units()
    assert np.array_equal(mask.affine, scan.affine)
    assert np.array_equal(read_grid(tmp_path / "mask.nii.gz").affine, grid.affine)


def test_sform_and_qform_that_disagree_are_named_with_the_mm(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, STRAIGHT)
    shifted = STRAIGHT.copy()
    shifted[2, 3] = 7
    image.set_sform(shifted, 1)
    image.set_qform(STRAIGHT, 1)
    nib.save(image, tmp_path / "scan.nii.gz")
    with collecting() as notes:
        volume = load(tmp_path / "scan.nii.gz")
    assert notes == [
        f"{tmp_path}/scan.nii.gz: its sform and qform lie 7 mm apart; the sform is used"
    ]
    assert np.allclose(volume.affine, shifted)
    write_mask(
        (VOXELS > 0).astype(np.uint8), tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", np.uint8
    )
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert np.allclose(mask.get_sform(), shifted)
    assert np.allclose(mask.get_qform(), STRAIGHT)
    image.set_sform(STRAIGHT, 1)
    nib.save(image, tmp_path / "good.nii.gz")
    with collecting() as notes:
        load(tmp_path / "good.nii.gz")
    assert not notes


@pytest.mark.parametrize("size", [0, np.nan, np.inf])
def test_a_zero_pixdim_is_mended_from_the_sform_or_refused(tmp_path: Path, size: float) -> None:
    path = save(tmp_path / "scan.nii.gz")
    pixdim = nib.load(path).header["pixdim"].copy()
    pixdim[2] = size
    change(path, pixdim=pixdim, qform_code=0)
    with collecting() as notes:
        assert np.allclose(read_grid(path).affine, STRAIGHT)
    assert notes == [
        f"{path}: its pixdim is zero or undefined; the spacing is taken from the sform"
    ]
    write_mask((VOXELS > 0).astype(np.uint8), path, tmp_path / "mask.nii.gz", np.uint8)
    assert np.allclose(nib.load(tmp_path / "mask.nii.gz").header.get_zooms(), (0.75, 1.5, 2.5))
    for codes in ((1, 0), (0, 0)):
        change(path, pixdim=pixdim, qform_code=codes[0], sform_code=codes[1])
        with pytest.raises(DataError, match="zero or undefined axis"):
            load(path)


def test_a_broken_sform_gives_way_to_the_qform_and_a_broken_qform_to_the_sform(
    tmp_path: Path,
) -> None:
    path = save(tmp_path / "scan.nii.gz")
    for fields, left_out, used in (
        ({"srow_x": (np.nan, 0, 0, 0), "sform_code": 1, "qform_code": 1}, "sform", "qform"),
        ({"sform_code": 1, "qform_code": 1, "quatern_b": 3.0}, "qform", "sform"),
    ):
        save(path)
        image = nib.load(path)
        image.set_qform(STRAIGHT, 1)
        image.set_sform(STRAIGHT, 1)
        nib.save(image, path)
        change(path, **fields)
        with collecting() as notes:
            assert np.allclose(read_grid(path).affine, STRAIGHT)
        assert f"its {left_out} is not an affine and is left out; the {used} is used" in notes[0]


@pytest.mark.parametrize("shape", [(6, 5, 4, 1), (6, 5, 4, 1, 1), (6, 5, 4, 1, 1, 1, 1)])
def test_trailing_axes_of_one_voxel_are_dropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "scan.nii.gz", VOXELS.reshape(shape))
    assert np.array_equal(load(path).numpy()[0], VOXELS)
    assert read_grid(path).shape == (6, 5, 4)
    assert np.array_equal(as_volume(nib.load(path)).numpy()[0], VOXELS)
    write_mask((VOXELS > 0).astype(np.uint8), path, tmp_path / "mask.nii.gz", np.uint8)
    assert nib.load(tmp_path / "mask.nii.gz").shape == (6, 5, 4)


def test_a_vector_image_has_channels_and_other_five_axes_are_refused(tmp_path: Path) -> None:
    vectors = np.stack([VOXELS, VOXELS + 1, VOXELS + 2], -1)
    path = save(tmp_path / "scan.nii.gz", vectors[:, :, :, None], intent_code=1007)
    assert np.array_equal(load(path).numpy(), np.moveaxis(vectors, -1, 0))
    write_mask((VOXELS > 0).astype(np.uint8), path, tmp_path / "mask.nii.gz", np.uint8)
    assert nib.load(tmp_path / "mask.nii.gz").header.get_intent()[0] == "none"
    path = save(tmp_path / "scan.nii.gz", np.stack([vectors, vectors], 3))
    with pytest.raises(DataError, match=r"has the shape \(6, 5, 4, 2, 3\); a scan has 3 axes"):
        load(path)


def test_colours_are_three_channels(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)
    stored = colours.view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))[..., 0]
    assert np.array_equal(
        load(save(tmp_path / "a.nii.gz", stored)).numpy(), np.moveaxis(colours, -1, 0)
    )


@pytest.mark.parametrize("ending", [".img", ".img.gz"])
def test_pairs_are_read_by_either_name(tmp_path: Path, ending: str) -> None:
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / f"scan{ending}")
    header, voxels = tmp_path / f"scan{ending.replace('img', 'hdr')}", tmp_path / f"scan{ending}"
    assert NIFTI.files(header) == [header, voxels] == NIFTI.files(voxels)
    for path in (header, voxels):
        assert np.array_equal(load(path).numpy()[0], VOXELS)
        assert np.allclose(read_grid(path).affine, AFFINE, atol=1e-5)
        write_mask((VOXELS > 0).astype(np.uint8), path, tmp_path / "mask.nii.gz", np.uint8)
    voxels.unlink()
    with pytest.raises(DataError, match="no such file"):
        load(header)
    nib.save(nib.AnalyzeImage(VOXELS, None), tmp_path / "old.img")
    with pytest.raises(DataError, match=r"old.hdr: .*Analyze 7.5 header, which has no orientation"):
        load(tmp_path / "old.hdr")


def test_a_name_may_lie_about_gzip(tmp_path: Path) -> None:
    packed = save(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii").write_bytes(packed.read_bytes())
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress(packed.read_bytes()))
    for name in ("b.nii", "c.nii.gz"):
        assert np.array_equal(load(tmp_path / name).numpy()[0], VOXELS)


def test_every_flipped_bit_of_packed_voxels_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", RNG.integers(0, 900, (20, 20, 10)).astype(np.int16))
    content = path.read_bytes()
    for position in RNG.integers(len(content) // 10, len(content) - 4, 60):
        changed = bytearray(content)
        changed[position] ^= 1 << int(RNG.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(DataError, match="cannot be read as NIfTI"):
            load(path)


def crafted_headers() -> dict[str, dict[str, Any]]:
    headers: dict[str, dict[str, Any]] = {}
    for value in (np.nan, np.inf, -np.inf, -1.0, -352.0, 0.0, 100.0, 347.0, 351.5, 1e6, 1e9, 1e30):
        headers[f"offset {value}"] = {"vox_offset": value}
    for value in (0, 1, 3, 5, 9, 32, 64, 127, 128, 255, 999, 1536, 1792, 2048, 2304, -4, 32767):
        headers[f"datatype {value}"] = {"datatype": value}
    for dim in (
        (0, 6, 5, 4, 1, 1, 1, 1),
        (8, 6, 5, 4, 1, 1, 1, 1),
        (-3, 6, 5, 4, 1, 1, 1, 1),
        (3, 0, 5, 4, 1, 1, 1, 1),
        (3, -6, 5, 4, 1, 1, 1, 1),
        (3, 32767, 32767, 32767, 1, 1, 1, 1),
        (3, 32767, 32767, 4, 1, 1, 1, 1),
        (3, 2000, 2000, 100, 1, 1, 1, 1),
        (7, 32767, 32767, 32767, 32767, 32767, 32767, 32767),
        (4, 6, 5, 4, 30000, 1, 1, 1),
        (7, 6, 5, 4, 2, 2, 2, 2),
        (5, 3, 5, 2, 2, 2, 1, 1),
    ):
        headers[f"dim {dim}"] = {"dim": dim}
    for slope, intercept in ((2, np.nan), (2, np.inf), (np.inf, 0), (-np.inf, 1)):
        headers[f"slope {slope} {intercept}"] = {"scl_slope": slope, "scl_inter": intercept}
    for code in range(3):
        bad = {"srow_x": (0, 0, 0, 0), "sform_code": 1, "qform_code": 0}
        headers[f"sform {code}"] = [
            bad,
            {**bad, "srow_x": (np.inf,) * 4},
            {**bad, "srow_y": (np.nan,) * 4},
        ][code]
    headers["qform"] = {"quatern_b": np.nan, "qform_code": 1, "sform_code": 0}
    headers["quaternion"] = {"quatern_b": 2.0, "quatern_c": 2.0, "qform_code": 1, "sform_code": 0}
    headers["magic"] = {"magic": b"xyz"}
    headers["size"] = {"sizeof_hdr": 347}
    return headers


def reason_of(path: Path) -> str:
    try:
        load(path)
    except DataError as error:
        return str(error)
    return ""


def harmless_headers() -> dict[str, dict[str, Any]]:
    return {
        "slope nan": {"scl_slope": np.nan, "scl_inter": np.nan},
        "slope 0": {"scl_slope": 0, "scl_inter": 3},
        "bitpix": {"bitpix": 99},
        "code": {"qform_code": 77},
        "unit": {"xyzt_units": 7},
        "negative pixdim": {"pixdim": (1, -0.75, 1.5, 2.5, 1, 1, 1, 1)},
        "qfac": {"pixdim": (0, 0.75, 1.5, 2.5, 1, 1, 1, 1)},
        "cal": {"cal_max": np.nan, "cal_min": np.inf},
        "slices": {"slice_code": 99, "slice_start": -5, "slice_end": -7},
        "intent": {"intent_code": 9999},
        "text": {"descrip": b"\xff\x1b[31m%n%s", "aux_file": b"/etc/passwd"},
    }


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_crafted_headers_are_refused_in_a_line_each(
    tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    for name, fields in crafted_headers().items():
        path = save(tmp_path / f"scan{ending}", **fields)
        message = reason_of(path)
        assert str(path) in message, name
        assert "\n" not in message, name
    for name, fields in harmless_headers().items():
        path = save(tmp_path / f"scan{ending}", **fields)
        with collecting():
            assert np.array_equal(load(path).numpy()[0], VOXELS), name
            write_mask((VOXELS > 0).astype(np.uint8), path, tmp_path / "mask.nii.gz", np.uint8)
    assert time.monotonic() - start < 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300
    assert not any(capfd.readouterr())


def test_a_bomb_is_unpacked_no_further_than_its_header(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii")
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
        file.write(path.read_bytes())
        for _ in range(400):
            file.write(bytes(2**20))
    extension = bytearray(path.read_bytes())
    extension[348:352] = b"\1\0\0\0"
    with gzip.open(tmp_path / "extension.nii.gz", "wb") as file:
        file.write(bytes(extension[:352]) + struct.pack("<ii", 2**31 - 16, 4))
        for _ in range(400):
            file.write(bytes(2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("bomb", "extension"):
        with pytest.raises(DataError, match=f"{name}.nii.gz: cannot be read as NIfTI"):
            load(tmp_path / f"{name}.nii.gz")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=0, max_size=40), st.integers(0, 351), st.booleans())
def test_noise_in_a_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int, packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    content = bytearray(save(folder / "scan.nii").read_bytes())
    content[place : place + len(noise)] = noise
    path = folder / ("scan.nii.gz" if packed else "scan.nii")
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    with collecting():
        assert "\n" not in reason_of(path)


def test_nothing_of_nibabel_is_logged_bare(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "scan.nii.gz", qform_code=77, bitpix=99)
    for _ in range(3):
        load(path)
    shown = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in shown] == ["segpipe"]
    assert "scan.nii.gz: its header was mended (qform_code 77 not valid" in caplog.text


def test_scaled_and_rounded_labels_are_ids(tmp_path: Path) -> None:
    ids = RNG.integers(0, 4, (6, 5, 4))
    save(tmp_path / "scaled.nii.gz", (100 * ids).astype(np.int16), scl_slope=0.01, scl_inter=0)
    save(tmp_path / "near.nii.gz", (ids + RNG.uniform(-9e-4, 9e-4, ids.shape)).astype(np.float32))
    for name in ("scaled", "near"):
        with collecting() as notes:
            label = load_label(tmp_path / f"{name}.nii.gz")
        assert np.array_equal(label.numpy()[0], ids)
        assert len(notes) == 1
        assert "off whole numbers and were rounded" in notes[0]
    with collecting() as notes:
        whole = load_label(save(tmp_path / "whole.nii.gz", ids.astype(np.float64)))
    assert not notes
    assert not whole.voxels.is_floating_point()
    far = load_label(save(tmp_path / "far.nii.gz", ids + 0.01)).numpy()
    assert np.allclose(far, ids + 0.01)  # for the doctor, who says what it holds


def case_of(folder: Path, image: np.ndarray) -> Case:
    label = save(folder / "label.nii.gz", (VOXELS > 0).astype(np.uint8))
    return Case("a", (save(folder / "image.nii.gz", image),), label)


def test_nan_is_refused_with_the_count_or_filled_with_it(tmp_path: Path) -> None:
    image = VOXELS.astype(np.float32)
    holes = image.copy()
    holes[0, 0, :3] = (np.nan, np.inf, -np.inf)
    filled = np.where(np.isfinite(holes), holes, holes[np.isfinite(holes)].min())
    case = case_of(tmp_path, holes)
    (finding,) = inspect_case(case, None).findings
    assert finding.severity == "error"
    assert "3 of 120 voxels are NaN or infinite" in finding.problem
    assert "data.nan=fill" in finding.problem
    (finding,) = inspect_case(case, None, nan="fill").findings
    assert (finding.kind, finding.severity) == ("survived", "warning")
    assert "3 of 120 voxels are NaN or infinite; they were filled" in finding.problem
    assert np.array_equal(load(case.images[0], "fill").numpy()[0], filled)
    tensor = Volume(torch.from_numpy(holes)[None], STRAIGHT)
    assert np.array_equal(as_volume(tensor, "fill").numpy()[0], filled)
    refusing, filling = plan(), plan("data.nan=fill")
    with pytest.raises(DataError, match="3 of 120 voxels"):
        prepare_scan(case.images, refusing)
    assert prepare_scan(case.images, filling).image.isfinite().all()
    with pytest.raises(DataError, match="every voxel of channel 0 is NaN or infinite"):
        load(save(tmp_path / "nan.nii.gz", np.full((6, 5, 4), np.nan)), "fill")


def test_the_policy_for_nan_is_an_option() -> None:
    assert composed().data.nan == "refuse"
    assert plan("data.nan=fill").nan == "fill"


@pytest.mark.parametrize("value", [3e38, -3e38, 1e300, 1e12])
def test_an_outlier_is_named_and_refused(tmp_path: Path, value: float) -> None:
    image = VOXELS.astype(np.float64)
    image[1, 1, 1] = value
    case = case_of(tmp_path, image)
    kinds = {finding.kind: finding for finding in inspect_case(case, None).findings}
    assert f"holds {value:g}" in kinds["outlier"].problem
    with pytest.raises(DataError, match="image.nii.gz: channel 0 holds"):
        prepare_scan(case.images, plan())
    assert find_outlier(VOXELS) is None
    assert find_outlier(np.where(VOXELS[0, 0, 0] == VOXELS, 4000, 0)) is None  # mostly air


def test_a_constant_scan_is_a_warning_in_the_table() -> None:
    made = plan()
    scan = Volume(torch.full((1, 6, 5, 4), 7.0), STRAIGHT)
    prepared = prepare_volume(scan, made)
    maps = Maps(prepared.grid, 0, 2, True, ("mask",))
    prediction = Prediction(np.zeros((6, 5, 4), np.uint8), prepared, maps)
    assert "every voxel of channel 0 is 7" in warnings_for(prediction, ScanRecord("a"), made)


@pytest.mark.parametrize("name", ["train_5d/images/c0.nii.gz", "micron_units.nii.gz"])
def test_faulty_scans(real_data: Path, name: str) -> None:
    grid = read_grid(real_data / "faults" / name)
    assert load(real_data / "faults" / name).shape == (1, *grid.shape)
    assert grid.shape == (32, 32, 24)
    assert np.allclose(grid.spacing_mm, 1)


def test_faulty_labels(real_data: Path) -> None:
    for path in sorted((real_data / "faults/scaled_labels/labels").iterdir()):
        with collecting() as notes:
            assert load_label(path).voxels.unique().tolist() == [0, 1, 2]
        assert len(notes) == 1
    for path in sorted((real_data / "faults/train_5d/labels").iterdir()):
        assert load_label(path).shape == (1, 32, 32, 24)
