"""Scanner grid <-> model grid: what comes back is what went in, wherever the scanner put it."""

import shutil
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from support.affines import ORIENTATIONS, make_affine

from segpipe.errors import DataError
from segpipe.geometry import Grid, ModelSpace, check_same_grid
from segpipe.io.volumes import read, read_grid, write_mask

SHAPE, SPACING, ANGLES = (7, 10, 5), (0.7, 1.3, 4.1), (9.0, -14.0, 20.0)


def one_hot(labels: torch.Tensor, count: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels[0].long(), count).movedim(-1, 0).float()


def test_the_orientations_are_all_48() -> None:
    assert len({turn.tobytes() for turn in ORIENTATIONS}) == 48


@pytest.mark.parametrize("number", range(48))
def test_labels_return_identical_at_the_same_spacing(number: int) -> None:
    affine = make_affine(ORIENTATIONS[number], SPACING, ANGLES)
    labels = MetaTensor(
        torch.from_numpy(np.random.default_rng(number).integers(0, 4, (1, *SHAPE), dtype=np.uint8)),
        affine,
    )
    grid = Grid.of(labels)
    space = ModelSpace(grid.ras_spacing_mm)
    inside = space.labels_to_model(labels)
    assert tuple(inside.shape[1:]) == grid.ras_shape
    assert torch.equal(space.to_native([one_hot(inside, 4)], 0, grid), labels.as_tensor())
    assert np.array_equal(grid.affine, affine)


@settings(deadline=None)
@given(
    turn=st.sampled_from(ORIENTATIONS),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    angles=st.tuples(*[st.floats(-22, 22)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    seed=st.integers(0, 2**16),
)
def test_any_grid_returns_identical(turn, spacing, angles, shape, seed) -> None:
    voxels = np.random.default_rng(seed).integers(0, 3, (1, *shape), dtype=np.uint8)
    labels = MetaTensor(torch.from_numpy(voxels), make_affine(turn, spacing, angles))
    for space in (ModelSpace((None, None, None)), ModelSpace(Grid.of(labels).ras_spacing_mm)):
        inside = space.labels_to_model(labels)
        assert torch.equal(
            space.to_native([one_hot(inside, 3)], 1, Grid.of(labels)), labels.as_tensor()
        )
        assert torch.equal(space.to_model(labels).to(torch.uint8), inside)


@pytest.mark.parametrize("number", range(48))
def test_axes_point_right_front_and_up(number: int) -> None:
    """A bright voxel far to the right, front or top of the patient lies at the high end of that axis."""
    affine = make_affine(ORIENTATIONS[number], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    index = np.indices(SHAPE).reshape(3, -1)
    world = (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *SHAPE)
    ras = Grid(SHAPE, affine).to_ras(torch.from_numpy(world))
    for axis in range(3):
        along = ras[axis].movedim(axis, 0).flatten(1)
        assert (along.diff(dim=0) > 0).all()


@pytest.mark.parametrize("factor", [0.7, 1.6])
def test_resampling_does_not_shift(factor: float) -> None:
    """The centre of mass of a smooth blob stays within a tenth of a voxel, for all 48 orientations."""
    index = np.indices((21, 24, 18), dtype=float)
    blob = sum(
        ((index[axis] - centre) / radius) ** 2
        for axis, centre, radius in ((0, 9.3, 6), (1, 13.1, 7), (2, 8.2, 5))
    )
    truth = (blob < 1).astype(np.uint8)
    for turn in ORIENTATIONS:
        volume = MetaTensor(
            torch.from_numpy(truth[None]), make_affine(turn, (1.1, 0.9, 1.4), ANGLES)
        )
        grid = Grid.of(volume)
        space = ModelSpace(tuple(mm * factor for mm in grid.ras_spacing_mm))  # type: ignore[arg-type]
        soft = space.to_model(volume)
        back = space.to_native([torch.cat([1 - soft, soft])], 2, grid)[0].numpy()
        moved = [index[axis][back > 0].mean() - index[axis][truth > 0].mean() for axis in range(3)]
        assert np.abs(moved).max() < 0.1
        assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95


def scan_file(
    folder: Path, data: np.ndarray, affine: np.ndarray | None = None, name: str = "scan.nii.gz"
) -> Path:
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), folder / name)
    return folder / name


@pytest.mark.parametrize("codes", [(1, 2), (0, 1), (4, 0), (3, 3)])
def test_masks_keep_the_scans_header(tmp_path: Path, codes: tuple[int, int]) -> None:
    affine = make_affine(ORIENTATIONS[17], SPACING, ANGLES)
    scan = nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine)
    scan.header.set_slope_inter(2.5, -1024)
    scan.header.set_xyzt_units("mm", "sec")
    scan.header["descrip"] = b"a scanner's words"
    scan.set_qform(affine, code=codes[0])
    scan.set_sform(affine if codes[1] else None, code=codes[1])
    nib.save(scan, tmp_path / "scan.nii.gz")
    mask = np.random.default_rng(0).integers(0, 5, SHAPE, dtype=np.uint8)
    write_mask(mask, tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", np.uint8)

    before, after = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(after.dataobj), mask)
    assert after.get_data_dtype() == np.uint8
    assert np.array_equal(after.affine, before.affine)
    for name in (
        "qform_code",
        "sform_code",
        "xyzt_units",
        "descrip",
        "quatern_b",
        "srow_x",
        "pixdim",
    ):
        assert np.array_equal(after.header[name], before.header[name]), name
    assert after.header.get_slope_inter() in [(1, 0), (None, None)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.nii.gz", "scan.nii.gz"]


def test_a_mask_that_does_not_read_back_leaves_no_file(tmp_path: Path) -> None:
    scan = scan_file(tmp_path, np.zeros((4, 4, 4), np.int16))
    with pytest.raises(DataError, match="does not read back as it was written"):
        write_mask(
            np.full((4, 4, 4), 300), scan, tmp_path / "mask.nii.gz", np.uint8
        )  # 300 does not fit uint8
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_big_endian_and_nifti2_files_are_read_and_kept(tmp_path: Path) -> None:
    data = np.arange(60, dtype=">i2").reshape(3, 4, 5)
    header = nib.Nifti2Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti2Image(data, np.eye(4), header), tmp_path / "scan.nii")
    assert np.array_equal(read([tmp_path / "scan.nii"]).numpy()[0], data)
    write_mask(np.ones((3, 4, 5), np.uint8), tmp_path / "scan.nii", tmp_path / "mask.nii", np.uint8)
    assert isinstance(nib.load(tmp_path / "mask.nii"), nib.Nifti2Image)


def test_channels_come_last_in_4d_files_and_first_in_volumes(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    assert np.array_equal(read([scan_file(tmp_path, data)]).numpy(), np.moveaxis(data, 3, 0))
    one = [scan_file(tmp_path, data[..., channel], name=f"{channel}.nii") for channel in range(2)]
    assert np.array_equal(read(one).numpy(), np.moveaxis(data, 3, 0))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "LA", "1"])
def test_images_are_volumes_of_one_slice(tmp_path: Path, mode: str) -> None:
    kind = {"I;16": np.uint16, "1": bool}.get(mode, np.uint8)
    rows = (
        np.random.default_rng(0)
        .integers(0, 2, (6, 9, len(mode) if mode.isalpha() and mode != "L" else 1))
        .astype(kind)
    )
    Image.fromarray(rows[..., 0] if mode in ("L", "I;16", "1") else rows, None).save(
        tmp_path / "image.png"
    )
    volume = read([tmp_path / "image.png"])
    channels = 3 if "RGB" in mode else 1
    assert volume.shape == (channels, 9, 6, 1)
    assert np.array_equal(volume.numpy()[..., 0], rows[..., :channels].transpose(2, 1, 0))
    write_mask(
        volume.numpy()[0].astype(np.uint8), tmp_path / "image.png", tmp_path / "mask.png", np.uint8
    )
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), rows[..., 0])


def broken_files(folder: Path) -> dict[str, str]:
    good = scan_file(folder, np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    content = good.read_bytes()
    (folder / "truncated.nii.gz").write_bytes(content[: len(content) // 2])
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "text.nii").write_text("not a scan")
    (folder / "photo.png").write_text("not a photo")
    nan = np.zeros((8, 8, 8), np.float32)
    nan[0, 0, :3] = np.nan
    scan_file(folder, nan, name="nan.nii.gz")
    scan_file(folder, np.zeros((2, 3, 4, 1, 2), np.float32), name="five.nii.gz")
    flat = bytearray(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)).to_bytes())
    flat[296:312] = bytes(16)  # srow_y, the second row of the affine
    (folder / "flat.nii").write_bytes(bytes(flat))
    huge = bytearray(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)).to_bytes())
    huge[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    (folder / "huge.nii").write_bytes(bytes(huge))
    return {
        "missing.nii.gz": "no such file",
        "truncated.nii.gz": "cannot be read as NIfTI",
        "empty.nii.gz": "cannot be read as NIfTI",
        "text.nii": "cannot be read as NIfTI",
        "photo.png": "cannot be read as an image",
        "nan.nii.gz": "3 of 512 voxels are NaN or infinite",
        "five.nii.gz": r"has the shape \(2, 3, 4, 1, 2\)",
        "flat.nii": "zero or undefined axis",
        "huge.nii": r"declares \(30000, 30000, 30000\) voxels",
    }


def test_unusable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    for name, reason in broken_files(tmp_path).items():
        with pytest.raises(DataError, match=reason) as caught:
            read([tmp_path / name])
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_on_two_grids_are_refused(tmp_path: Path) -> None:
    grid = Grid((4, 4, 4), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 0.4
    check_same_grid(tmp_path / "a", grid, tmp_path / "b", Grid((4, 4, 4), moved))
    moved[0, 3] = 0.6
    with pytest.raises(DataError, match=r"lies up to 0.60 mm from a"):
        check_same_grid(tmp_path / "a", grid, tmp_path / "b", Grid((4, 4, 4), moved))
    with pytest.raises(DataError, match=r"has the shape \(4, 4, 5\), but a has \(4, 4, 4\)"):
        check_same_grid(tmp_path / "a", grid, tmp_path / "b", Grid((4, 4, 5), np.eye(4)))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(turn=st.sampled_from(ORIENTATIONS), angles=st.tuples(*[st.floats(-20, 20)] * 3))
def test_a_scans_header_alone_tells_its_grid(
    tmp_path: Path, turn: np.ndarray, angles: tuple[float, ...]
) -> None:
    path = scan_file(
        tmp_path, np.zeros(SHAPE, np.int16), make_affine(turn, SPACING, angles), "grid.nii"
    )
    whole, header = Grid.of(read([path])), read_grid(path)
    assert header.shape == whole.shape
    assert np.array_equal(header.affine, whole.affine)
    assert header.voxel_ml == pytest.approx(np.prod(SPACING) / 1000, rel=1e-5)


def test_real_scans_return_identical(real_data: Path, tmp_path: Path) -> None:
    for path in sorted((real_data / "spinal_cord" / "labels").iterdir()):
        volume = read([path])
        grid = Grid.of(volume)
        space = ModelSpace((None, None, None))
        back = space.to_native([one_hot(space.labels_to_model(volume), 2)], 0, grid)[0].numpy()
        shutil.copy(path, tmp_path / path.name)
        write_mask(back, path, tmp_path / f"mask_{path.name}", np.uint8)
        written, original = nib.load(tmp_path / f"mask_{path.name}"), nib.load(path)
        assert np.array_equal(np.asarray(written.dataobj), np.asarray(original.dataobj))
        assert np.array_equal(written.get_sform(), original.get_sform())
        assert np.array_equal(written.get_qform(), original.get_qform())


@settings(max_examples=60, deadline=None)
@given(
    model=st.tuples(*[st.integers(1, 9)] * 3),
    native=st.tuples(*[st.integers(1, 14)] * 3),
    cuts=st.sets(st.integers(1, 8)),
    axis=st.integers(0, 2),
    most=st.sampled_from([1, 40, 10**6]),
    regions=st.booleans(),
)
def test_slabs_leave_model_space_as_the_whole_volume_does(
    model, native, cuts, axis, most, regions
) -> None:
    """Any cut into slabs, however few rows are decided at once, gives what interpolating all classes at once gives."""
    probabilities = torch.rand(
        4, *model, generator=torch.Generator().manual_seed(sum(model) + sum(native))
    )
    spacing = tuple(of / size for size, of in zip(model, native, strict=True))
    grid = Grid(native, np.diag([-1.0, 1.0, -1.0, 1.0]))
    space = ModelSpace(spacing)  # type: ignore[arg-type]
    assert space.shape(grid) == model
    edges = [0, *sorted(cut for cut in cuts if cut < model[axis]), model[axis]]
    slabs = [probabilities.narrow(axis + 1, a, b - a) for a, b in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("segpipe.resampling.BLOCK_VOXELS", most)
        found = grid.to_ras(
            space.to_native(iter(slabs), axis, grid, [1, 2, 3, 4] if regions else None)
        )[0]
    whole = torch.nn.functional.interpolate(
        probabilities[None], native, mode="trilinear", align_corners=False
    )[0]
    clear = (
        (whole - 0.5).abs().min(0).values > 1e-5
        if regions
        else whole.topk(2, 0).values.diff(dim=0)[0].abs() > 1e-5
    )
    painted = torch.zeros(native, dtype=torch.uint8)
    for number, one in enumerate(whole, 1):
        painted[one > 0.5] = number
    expected = painted if regions else whole.argmax(0).to(torch.uint8)
    assert torch.equal(found[clear], expected[clear])
