"""What nibabel, SimpleITK, Pillow and tifffile write is read as the same voxels in the same places."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from segpipe.io.notes import collecting
from segpipe.io.volumes import load, read_grid

UNIT_MM = {"micron": 1e-3, "mm": 1.0, "meter": 1e3, "unknown": 1.0}
SIZES = st.integers(1, 7)
SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = settings(max_examples=50, deadline=None)
NIFTI_TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
TIFF_TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"]
NIFTI_CLASSES = [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair]


def draw(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Voxels of this type over its whole range."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
    return rng.normal(0, 1000, shape).astype(kind)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


def check(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Check that a file reads as these voxels `(c, x, y, z)`, and that its header agrees."""
    with collecting() as notes:
        volume = load(path)
        grid = read_grid(path)
    assert not notes
    assert np.array_equal(volume.numpy(), voxels.astype(volume.numpy().dtype))
    assert np.allclose(volume.numpy().astype(float), voxels.astype(float), rtol=1e-15)
    assert np.allclose(volume.affine, affine, rtol=1e-6, atol=1e-6 * np.abs(affine).max())
    assert grid.shape == tuple(volume.shape[1:])
    assert np.array_equal(grid.affine, volume.affine)


@EXAMPLES
@given(
    seed=SEEDS,
    shape=st.tuples(SIZES, SIZES, SIZES),
    channels=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from(NIFTI_TYPES),
    order=st.sampled_from("<>"),
    image_class=st.sampled_from(NIFTI_CLASSES),
    unit=st.sampled_from(list(UNIT_MM)),
    scaled=st.booleans(),
    codes=st.sampled_from([(0, 1), (1, 0), (1, 1), (2, 4)]),
    packed=st.booleans(),
)
def test_nifti(
    folder: Path,
    seed: int,
    shape: tuple[int, int, int],
    channels: int | None,
    dtype: str,
    order: str,
    image_class: Any,
    unit: str,
    scaled: bool,
    codes: tuple[int, int],
    packed: bool,
) -> None:
    rng = np.random.default_rng(seed)
    voxels = draw(seed, shape if channels is None else (*shape, channels), dtype)
    affine = np.eye(4)
    turn = Rotation.random(random_state=seed % 2**31).as_matrix()
    affine[:3, :3] = turn @ np.diag(rng.uniform(0.3, 5, 3) * rng.choice((-1, 1), 3))
    affine[:3, 3] = rng.normal(0, 100, 3)
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(np.dtype(order + dtype))
    image = image_class(voxels, affine, header)
    image.header.set_xyzt_units(unit)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    if scaled:
        image.header.set_slope_inter(float(rng.uniform(0.1, 9)), float(rng.normal(0, 99)))
    ending = ".img" if "Pair" in image_class.__name__ else ".nii"
    path = folder / f"scan{ending}{'.gz' if packed else ''}"
    nib.save(image, path)
    written = nib.load(path)
    expected = np.asanyarray(written.dataobj).reshape(*shape, channels or 1)
    factor = np.diag([UNIT_MM[unit]] * 3 + [1])
    check(path, np.moveaxis(expected, -1, 0), factor @ written.affine)


@EXAMPLES
@given(
    seed=SEEDS,
    shape=st.tuples(SIZES, SIZES, SIZES),
    channels=st.sampled_from([1, 2, 5]),
    dtype=st.sampled_from(NIFTI_TYPES),
    ending=st.sampled_from([".mha", ".mhd", ".nrrd", ".nhdr"]),
    packed=st.booleans(),
)
def test_simpleitk(
    folder: Path,
    seed: int,
    shape: tuple[int, int, int],
    channels: int,
    dtype: str,
    ending: str,
    packed: bool,
) -> None:
    rng = np.random.default_rng(seed)
    voxels = draw(seed, (channels, *shape), dtype)
    array = voxels.T.squeeze(3) if channels == 1 else voxels.T
    image = SimpleITK.GetImageFromArray(array, isVector=channels > 1)
    turn = Rotation.random(random_state=seed % 2**31).as_matrix()
    spacing = rng.uniform(0.3, 5, 3)
    origin = rng.normal(0, 100, 3)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(turn.ravel().tolist())
    path = folder / f"itk{ending}"
    SimpleITK.WriteImage(image, str(path), packed)
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = origin
    check(path, voxels, np.diag([-1, -1, 1, 1]) @ affine)


@EXAMPLES
@given(
    seed=SEEDS,
    size=st.tuples(SIZES, SIZES),
    channels=st.sampled_from([1, 3]),
    ending=st.sampled_from([".png", ".jpg"]),
    deep=st.booleans(),
)
def test_pillow(
    folder: Path, seed: int, size: tuple[int, int], channels: int, ending: str, deep: bool
) -> None:
    dtype = "u2" if deep and channels == 1 and ending == ".png" else "u1"
    array = draw(seed, (*size, channels), dtype)
    path = folder / f"image{ending}"
    Image.fromarray(array.squeeze(2) if channels == 1 else array).save(path)
    with Image.open(path) as image:
        written = np.asarray(image).reshape(*size, channels)
    check(path, written.transpose(2, 1, 0)[..., None], np.diag([-1, -1, 1, 1]))


@EXAMPLES
@given(
    seed=SEEDS,
    size=st.tuples(SIZES, SIZES, SIZES),
    channels=st.sampled_from([1, 2, 3, 5]),
    dtype=st.sampled_from(TIFF_TYPES),
    order=st.sampled_from("<>"),
    packed=st.sampled_from([None, "zlib", "lzw", "zstd", "packbits"]),
    tile=st.sampled_from([None, (16, 16)]),
    planar=st.sampled_from(["contig", "separate"]),
    bigtiff=st.booleans(),
)
def test_tifffile(
    folder: Path,
    seed: int,
    size: tuple[int, int, int],
    channels: int,
    dtype: str,
    order: str,
    packed: str | None,
    tile: tuple[int, int] | None,
    planar: str,
    bigtiff: bool,
) -> None:
    pages = draw(seed, (*size, channels), dtype)
    path = folder / "stack.tif"
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=bigtiff) as writer:
        for page in pages:
            stored = page[..., 0] if channels == 1 else page
            if channels > 1 and planar == "separate":
                stored = page.transpose(2, 0, 1)
            layout = {} if channels == 1 else {"planarconfig": planar}
            writer.write(
                stored,
                photometric="minisblack",
                compression=packed,
                tile=tile,
                metadata=None,
                **layout,
            )
    check(path, pages.transpose(3, 2, 1, 0), np.diag([-1, -1, 1, 1]))


@EXAMPLES
@given(
    seed=SEEDS,
    size=st.tuples(*[st.integers(2, 7)] * 3),  # tifffile drops rows of one pixel
    dtype=st.sampled_from(["u1", "u2", "f4"]),
    spacing=st.tuples(*[st.floats(0.01, 100)] * 3),
    is_ome=st.booleans(),
)
def test_stacks_with_millimetres(
    folder: Path,
    seed: int,
    size: tuple[int, int, int],
    dtype: str,
    spacing: tuple[float, float, float],
    is_ome: bool,
) -> None:
    array = draw(seed, size, dtype)
    path = folder / "calibrated.tif"
    x, y, z = spacing
    metadata: dict[str, Any] = {"axes": "ZYX"}
    if is_ome:
        metadata |= {"PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
        tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata=metadata)
    else:
        metadata |= {"spacing": z, "unit": "um"}
        resolution = (1 / x, 1 / y)
        options: dict[str, Any] = {"resolution": resolution, "metadata": metadata}
        tifffile.imwrite(path, array, imagej=True, photometric="minisblack", **options)
    check(path, array.T[None], np.diag([-x / 1e3, -y / 1e3, z / 1e3, 1]))
