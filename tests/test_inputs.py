"""NRRD, MetaImage and DICOM: read where their headers say, and refused where no mask could lie right."""

import csv
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from scipy.spatial.transform import Rotation
from support.commands import command
from support.config import composed
from support.dicom_files import ACROSS, write_series
from support.plans import fingerprint

from segpipe.checkpoint import KEY, NETWORK, metadata
from segpipe.errors import ConfigError, DataError
from segpipe.io.volumes import read, read_grid, write_mask
from segpipe.nets.build import build
from segpipe.planning.rules import make_plan
from segpipe.prediction.scans import find_scans

LPS = np.diag([-1.0, -1, 1, 1])
VOXELS = np.random.default_rng(0).integers(-900, 900, (9, 7, 5)).astype(np.int16)
ORIENTATION, POSITION, SERIES = (0x0020, 0x0037), (0x0020, 0x0032), (0x0020, 0x000E)


def oblique() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (9, -14, 20), degrees=True).as_matrix() @ np.diag(
        (0.7, 1.3, 2.5)
    )
    affine[:3, 3] = (-31.5, 12.25, 100)
    return affine


def write_itk(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    image = SimpleITK.GetImageFromArray(voxels.transpose(*range(2, -1, -1), *range(3, voxels.ndim)))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_a_mask_lies_where_the_scan_lies(tmp_path: Path, ending: str) -> None:
    path, affine = write_itk(tmp_path / f"scan{ending}", VOXELS, oblique()), oblique()
    volume = read([path])
    assert np.array_equal(volume.numpy()[0], VOXELS)
    assert np.abs(np.asarray(volume.affine) - affine).max() < 1e-5
    assert read_grid(path).shape == VOXELS.shape
    (scan,) = find_scans(str(path), tmp_path / "masks", 1)
    assert scan.mask_name == "scan.nii.gz"
    write_mask((VOXELS > 0).astype(np.uint8), path, tmp_path / "masks" / scan.mask_name, np.uint8)
    mask = nib.load(tmp_path / "masks/scan.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), VOXELS > 0)
    assert np.array_equal(mask.affine, read_grid(path).affine)
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (1, 1)
    assert mask.header.get_xyzt_units()[0] == "mm"


def test_a_vector_image_has_channels(tmp_path: Path) -> None:
    two = np.stack([VOXELS, -VOXELS], -1)
    assert np.array_equal(
        read([write_itk(tmp_path / "scan.mha", two, oblique())]).numpy(), np.moveaxis(two, -1, 0)
    )


def test_a_dicom_series_is_one_scan(tmp_path: Path) -> None:
    """Files named against the slices' order, oblique directions, and a rescaling to HU."""
    turn = Rotation.from_euler("xyz", (9, -14, 20), degrees=True).as_matrix()
    across, step = (tuple(turn[:, 0]), tuple(turn[:, 1])), tuple(2.5 * turn[:, 2])
    rescaled = {number: {(0x0028, 0x1052): "-1024", (0x0028, 0x1053): "2"} for number in range(5)}
    folder = write_series(
        tmp_path / "scans/chest", VOXELS, step=step, across=across, changes=rescaled
    )
    volume = read([folder])
    assert np.array_equal(volume.numpy()[0], 2.0 * VOXELS - 1024)
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = turn @ np.diag((0.7, 1.3, 2.5)), (-31.5, 12.25, 100)
    assert np.abs(np.asarray(volume.affine) - LPS @ expected).max() < 1e-3
    write_series(tmp_path / "scans/head", VOXELS)
    for given, names in (
        ("scans", ["chest", "head"]),
        ("scans/head", ["head"]),
        ("scans/h*", ["head"]),
    ):
        assert [
            scan.name for scan in find_scans(str(tmp_path / given), tmp_path / "masks", 1)
        ] == names


def _tilted(number: int) -> dict[tuple[int, int], Any]:
    return {
        POSITION: (-31.5, 12.25 + number * 2.5 * math.tan(math.radians(12)), 100 + 2.5 * number)
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {3: {POSITION: (-31.5, 12.25, 109.0)}},
            r"0003.dcm and 0002.dcm lie 4 mm apart, most slices 2.5 mm: the spacing is uneven",
        ),
        (
            {4: {POSITION: (-31.5, 12.25, 112.5)}},
            r"lie 5 mm apart, most slices 2.5 mm: 1 missing between them",
        ),
        ({number: _tilted(number) for number in range(5)}, r"the gantry is tilted by 12.0 degrees"),
        ({2: {SERIES: "1.2.9"}}, r"holds 2 DICOM volumes; give one by a file of it: 000"),
        (
            {2: {ORIENTATION: (*ACROSS[1], *ACROSS[0])}},
            r"holds 2 DICOM volumes; give one by a file of it: .*1 slice\), .*4 slices\)",
        ),
        ({2: {POSITION: None}}, r"has no position or orientation of the slice \(tag 0020,0032\)"),
    ],
)
def test_what_is_no_stack_of_slices_is_refused(
    tmp_path: Path, changes: dict[int, Any], reason: str
) -> None:
    folder = write_series(tmp_path / "scan", VOXELS, changes=changes)
    for reading in (read_grid, lambda path: read([path])):
        with pytest.raises(DataError, match=reason) as refused:
            reading(folder)
        assert str(folder) in str(refused.value)


def test_damaged_headers_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = "NRRD0004\ntype: short\ndimension: {}\nsizes: {}\nencoding: raw\nendian: little\n{}\n"
    lying = "space: left-posterior-superior\nspace directions: ({},0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
    for sizes, more, reason in (
        ("90000 90000 90000", lying.format(1), "the header declares"),
        ("4 4 4", lying.format(1), "declares 128 bytes of voxels, and the file has 0"),
        ("4 4 4", lying.format(0), "cannot be read|zero or undefined axis"),
        ("4 4 4", lying.format("nan"), "cannot be read|zero or undefined axis"),
    ):
        path = tmp_path / "scan.nrrd"
        path.write_text(header.format(3, sizes, more))
        with pytest.raises(DataError, match=reason):
            read([path])
    path.write_text(header.format(4, "4 4 4 4", ""))
    with pytest.raises(DataError, match="has 4 axes; a scan has 3"):
        read([path])
    path.write_text("not an image")
    with pytest.raises(DataError, match="cannot be read"):
        read([path])


def test_two_scans_of_one_name_are_refused(tmp_path: Path) -> None:
    write_itk(tmp_path / "scan.nrrd", VOXELS, np.eye(4))
    nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigError, match="would all be written as scan"):
        find_scans(str(tmp_path), tmp_path / "masks", 1)


@pytest.mark.parametrize("maker", ["generic", "siemens"])
def test_real_series_lie_where_their_conversion_lies(real_data: Path, maker: str) -> None:
    folder = real_data / f"dicom/series/{maker}/001"
    series, converted = read([folder]), read([folder.with_name("001_ground_truth.nii.gz")])
    here, there = (
        read_grid(path) for path in (folder, folder.with_name("001_ground_truth.nii.gz"))
    )
    assert np.array_equal(
        here.to_ras(series.as_tensor()).numpy(), there.to_ras(converted.as_tensor()).numpy()
    )
    ends = []
    for grid in (here, there):
        last = np.subtract(grid.shape, 1)
        corners = [
            (grid.affine @ [*np.multiply(corner, last), 1])[:3] for corner in np.ndindex(2, 2, 2)
        ]
        ends.append((np.min(corners, 0), np.max(corners, 0)))
    assert np.allclose(ends[0], ends[1], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "reason"), [("gantry_tilt", "tilted by 14.0"), ("missing_slice", "1 missing")]
)
def test_real_broken_series_are_refused(real_data: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read([real_data / "dicom/broken" / name])


def network_of_one_channel(file: Path) -> Path:
    options = composed("model.channels=[4,8]", "plan.spacing=[1,1,2]", "plan.patch=[16,16,8]")
    labels = {"background": 0, "organ": 1}
    plan = make_plan(options, fingerprint((1.0, 1.0, 2.0), (20, 16, 8)), ["MRI"], labels, "cpu")
    torch.manual_seed(0)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: metadata(options.model_dump(mode="json"), plan)}, file)
    return file


def write_twelve_bad_ones(folder: Path) -> None:
    affine, header = (
        oblique(),
        "NRRD0004\ntype: short\ndimension: {}\nsizes: {}\nencoding: raw\nendian: little\n{}\n",
    )
    there = "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
    nib.save(nib.Nifti1Image(VOXELS, affine), folder / "cut.nii.gz")
    (folder / "cut.nii.gz").write_bytes((folder / "cut.nii.gz").read_bytes()[:300])
    (folder / "text.nii").write_text("no scan at all")
    (folder / "empty.nii.gz").touch()
    nib.save(nib.Nifti1Image(np.where(VOXELS > 800, np.nan, VOXELS), affine), folder / "nan.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([VOXELS, VOXELS], -1), affine), folder / "channels.nii.gz")
    (folder / "huge.nrrd").write_text(header.format(3, "90000 90000 90000", there))
    (folder / "flat.nrrd").write_text(header.format(2, "4 4", ""))
    write_itk(folder / "short.mha", VOXELS, affine)
    (folder / "short.mha").write_bytes((folder / "short.mha").read_bytes()[:-200])
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    write_series(
        folder / "tilted", VOXELS, changes={number: _tilted(number) for number in range(5)}
    )
    write_series(folder / "gap", VOXELS, changes={4: {POSITION: (-31.5, 12.25, 112.5)}})
    nib.save(nib.Nifti1Image(VOXELS.astype(np.complex64), affine), folder / "two.nii")


def test_thirty_inputs_of_which_twelve_are_bad(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for number, ending in enumerate([".nii.gz"] * 6 + [".nii"] * 3 + [".nrrd"] * 3 + [".mha"] * 3):
        voxels, path = np.roll(VOXELS, number), scans / f"good{number:02d}{ending}"
        if "nii" in ending:
            nib.save(nib.Nifti1Image(voxels, oblique()), path)
        else:
            write_itk(path, voxels, oblique())
    for number in range(15, 18):
        write_series(scans / f"good{number}", np.roll(VOXELS, number))
    write_twelve_bad_ones(scans)
    checkpoint = network_of_one_channel(tmp_path / "some.ckpt")
    call = [f"checkpoint={checkpoint}", "input=scans", "output=masks", "overlays=false"]
    done = command("predict.py", *call, folder=tmp_path)
    assert done.returncode == 3, done.stderr
    with (tmp_path / "masks/predictions.csv").open() as file:
        reasons = {row["case"]: row["reason"] for row in csv.DictReader(file)}
    bad = {name: reason for name, reason in reasons.items() if reason}
    assert len(reasons) == 30
    assert sorted(bad) == sorted(
        [
            "cut",
            "text",
            "empty",
            "nan",
            "channels",
            "huge",
            "flat",
            "short",
            "picture",
            "tilted",
            "gap",
            "two",
        ]
    )
    for name, reason in bad.items():
        assert f"scans/{name}" in reason
        assert reason in done.stderr + done.stdout
    assert len({reason.replace(name, "") for name, reason in bad.items()}) == 12
    masks = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.nii.gz")}
    assert len(masks) == 18
    for path in masks:
        nib.load(path).get_fdata()
    again = command("predict.py", *call, folder=tmp_path)
    assert again.returncode == 0, "nothing has failed that did not fail before"
    assert "12 known failures" in again.stdout
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.nii.gz")
    } == masks
