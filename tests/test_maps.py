"""Probabilities and entropy on the scan's own grid."""

from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.affines import ORIENTATIONS, make_affine

from segpipe.errors import DataError
from segpipe.geometry import Grid, ModelSpace
from segpipe.io.volumes import write_shares
from segpipe.prediction.maps import Maps

BOTH = ("probabilities", "entropy")


@pytest.mark.parametrize("number", range(48))
def test_what_is_written_through_the_view_is_what_turning_gives(number: int) -> None:
    grid = Grid((5, 4, 3), make_affine(ORIENTATIONS[number], (1.0, 2.0, 3.0), (0.1, 0.2, 0.0)))
    array = np.zeros((2, 5, 4, 3), np.uint8, order="F")
    ras = torch.arange(2 * 60, dtype=torch.uint8).reshape(2, *grid.ras_shape)
    grid.ras_view(array)[:] = ras.numpy()
    assert np.array_equal(array, grid.from_ras(ras).numpy())


@settings(max_examples=40, deadline=None)
@given(
    model=st.tuples(*[st.integers(1, 9)] * 3),
    native=st.tuples(*[st.integers(1, 12)] * 3),
    cuts=st.sets(st.integers(1, 8)),
    axis=st.integers(0, 2),
    most=st.sampled_from([1, 40, 10**6]),
    exclusive=st.booleans(),
)
def test_slabs_leave_the_maps_of_the_whole_volume(
    model, native, cuts, axis, most, exclusive
) -> None:
    """However the volume is cut, what is kept is within half a step of what interpolating all classes at once gives."""
    noise = (
        torch.randn(3, *model, generator=torch.Generator().manual_seed(sum(model) + sum(native)))
        * 3
    )
    probabilities = torch.softmax(noise, 0) if exclusive else torch.sigmoid(noise)
    grid = Grid(native, np.diag([-1.0, 1.0, -1.0, 1.0]))
    space = ModelSpace(tuple(of / size for size, of in zip(model, native, strict=True)))  # type: ignore[arg-type]
    edges = [0, *sorted(cut for cut in cuts if cut < model[axis]), model[axis]]
    slabs = [probabilities.narrow(axis + 1, a, b - a) for a, b in pairwise(edges)]
    maps, ids = Maps(grid, axis, 3, exclusive, BOTH), None if exclusive else [1, 2, 3]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("segpipe.resampling.BLOCK_VOXELS", most)
        labels = space.to_native(iter(slabs), axis, grid, ids, maps.observe)
    assert torch.equal(labels, space.to_native([probabilities], axis, grid, ids))
    whole = torch.nn.functional.interpolate(
        probabilities[None], native, mode="trilinear", align_corners=False
    )[0].double()
    whole = whole.flip(1, 3)
    assert maps.probabilities is not None
    assert maps.entropy is not None
    assert maps.probabilities.shape == (*native, 3)
    assert (
        np.abs(maps.probabilities / 255 - whole.permute(1, 2, 3, 0).numpy()).max()
        <= 0.5 / 255 + 1e-5
    )
    if exclusive:
        entropy = torch.distributions.Categorical(probs=whole.movedim(0, -1)).entropy() / np.log(3)
    else:
        entropy = torch.distributions.Bernoulli(probs=whole).entropy().mean(0) / np.log(2)
    assert np.abs(maps.entropy / 255 - entropy.numpy()).max() <= 0.5 / 255 + 1e-5


def test_the_entropy_of_what_is_sure_is_0_and_of_what_is_even_1() -> None:
    grid = Grid((2, 1, 1), np.eye(4))
    for exclusive in (True, False):
        even = 0.25 if exclusive else 0.5
        probabilities = torch.tensor([[1, even], [0, even], [0, even], [0, even]]).reshape(
            4, 2, 1, 1
        )
        maps = Maps(grid, 0, 4, exclusive, ["entropy"])
        ModelSpace((None, None, None)).to_native(
            [probabilities], 0, grid, None if exclusive else [1, 2, 3, 4], maps.observe
        )
        assert maps.probabilities is None
        assert maps.entropy is not None
        assert maps.entropy.ravel().tolist() == [0, 255]


def test_maps_lie_in_no_file_that_could_be_left_behind(tmp_path: Path) -> None:
    maps = Maps(Grid((8, 8, 8), np.eye(4)), 0, 3, True, BOTH, tmp_path)
    assert maps.probabilities is not None
    assert isinstance(maps.probabilities, np.memmap)
    assert not list(tmp_path.iterdir())


def header_of(path: Path) -> tuple:
    image = nib.load(path)
    header = image.header
    return (
        type(image),
        image.get_sform().tolist(),
        image.get_qform().tolist(),
        int(header["sform_code"]),
        int(header["qform_code"]),
        header.get_xyzt_units(),
        header["descrip"].item(),
    )


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("classes", [(), (3,)])
def test_shares_lie_as_their_scan_and_stay_small(
    tmp_path: Path, kind, classes: tuple[int, ...]
) -> None:
    affine = np.array([[0, -1.5, 0.1, 9], [1.2, 0, 0, -4], [0, 0.1, -2, 7], [0, 0, 0, 1.0]])
    scan = kind(np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32) * 1000, affine)
    scan.set_sform(affine, 4)
    scan.set_qform(affine, 1)
    scan.header.set_slope_inter(2, -1024)
    scan.header.set_xyzt_units("mm", "sec")
    scan.header["descrip"] = b"as the scanner wrote it"
    nib.save(scan, tmp_path / "scan.nii.gz")
    shares = np.random.default_rng(1).integers(0, 256, (9, 8, 7, *classes), dtype=np.uint8)
    path = tmp_path / "out" / "shares.nii.gz"
    write_shares(
        shares, tmp_path / "scan.nii.gz", path, ["background", "liver", "tumour"][: sum(classes)]
    )
    written = nib.load(path)
    assert header_of(path) == header_of(tmp_path / "scan.nii.gz")
    assert written.get_data_dtype() == np.uint8
    assert np.abs(written.get_fdata() - shares / 255).max() < 1e-6
    assert np.array_equal(written.dataobj.get_unscaled(), shares)
    comments = [extension.text for extension in written.header.extensions]
    assert comments == (["background, liver, tumour"] if classes else [])
    assert [file.name for file in path.parent.iterdir()] == ["shares.nii.gz"]


def test_shares_of_an_image_are_a_volume_of_one_slice(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "scan.png")
    shares = np.random.default_rng(1).integers(0, 256, (6, 5, 1), dtype=np.uint8)
    write_shares(shares, tmp_path / "scan.png", tmp_path / "shares.nii.gz")
    written = nib.load(tmp_path / "shares.nii.gz")
    assert np.abs(written.get_fdata() - shares / 255).max() < 1e-6
    assert np.array_equal(np.diag(written.affine), [-1, -1, 1, 1])


def test_shares_that_do_not_read_back_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "scan.nii")
    shares = np.full((4, 4, 4, 2), 7, np.uint8)
    whole = nib.save

    def flawed(image: nib.Nifti1Image, path: Path) -> None:
        voxels = np.array(image.dataobj)
        voxels[3, 3, 3, 1] = 8
        whole(nib.Nifti1Image(voxels, image.affine, image.header), path)

    monkeypatch.setattr("segpipe.io.volumes.nib.save", flawed)
    with pytest.raises(DataError, match="shares.nii: does not read back as it was written"):
        write_shares(shares, tmp_path / "scan.nii", tmp_path / "shares.nii")
    assert [file.name for file in tmp_path.iterdir()] == ["scan.nii"]
