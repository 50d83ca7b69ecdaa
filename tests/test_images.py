"""PNG, JPEG and TIFF: all channels, all pages, upright, and label maps by their ids."""

import logging
import os
import signal
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from segpipe.data.cases import Case
from segpipe.data.inspection import inspect_case
from segpipe.errors import DataError
from segpipe.io import apart, images, notes
from segpipe.io.notes import collecting
from segpipe.io.tiff import read as read_tiff
from segpipe.io.volumes import load, load_label, mask_ending, read_grid, shown_unit, write_mask

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)  # rows, columns
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
STACK = RNG.integers(0, 256, (4, 5, 7), np.uint8)  # pages, rows, columns


def as_rows(path: Path) -> np.ndarray:
    """Voxels as (channels, pages, rows, columns), and the grid from the header checked against them."""
    volume = load(path)
    grid = read_grid(path)
    assert grid.shape == tuple(volume.shape[1:])
    assert np.array_equal(grid.affine, volume.affine)
    return volume.numpy().transpose(0, 3, 2, 1)


def tiff(path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "minisblack", "metadata": None} | options)
    return path


def png(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "u2", ">u2", "i2", "u4", "i4", "f2", "f4", ">f8"]
)
@pytest.mark.parametrize("packed", [{}, {"compression": "zlib"}, {"compression": "lzw"}])
def test_every_number_type_of_a_tiff(tmp_path: Path, dtype: str, packed: dict[str, str]) -> None:
    values = RNG.normal(0, 60, (5, 7)).astype(np.float32)
    array = values > 0 if dtype == "?" else values.clip(0).astype(dtype)
    if dtype in ("i1", "i2", "i4", "f2", "f4", ">f8"):
        array = values.clip(-128, 127).astype(dtype)
    byteorder = ">" if dtype.startswith(">") else "<"
    path = tiff(tmp_path / "a.tif", array, byteorder=byteorder, **packed)
    assert np.array_equal(as_rows(path)[0, 0], array.astype(float))


@pytest.mark.parametrize("channels", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_all_channels_of_a_tiff_are_kept(
    tmp_path: Path, channels: int, planar: str, dtype: Any
) -> None:
    array = RNG.integers(0, 255, (5, 7, channels)).astype(dtype)
    stored = array if planar == "contig" else array.transpose(2, 0, 1)
    colours = "rgb" if channels == 3 else "minisblack"
    path = tiff(tmp_path / "a.tif", stored, photometric=colours, planarconfig=planar)
    assert np.array_equal(as_rows(path)[:, 0], array.transpose(2, 0, 1))


def test_opacity_is_dropped_only_where_it_is_opaque(tmp_path: Path) -> None:
    opaque = np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)])
    data = np.dstack([COLOUR, GREY])
    for kind in ("unassalpha", "assocalpha"):
        options = {"photometric": "rgb", "extrasamples": [kind]}
        assert len(as_rows(tiff(tmp_path / "a.tif", opaque, **options))) == 3
        assert np.array_equal(as_rows(tiff(tmp_path / "a.tif", data, **options))[3, 0], GREY)
    unspecified = tiff(tmp_path / "a.tif", opaque, photometric="rgb", extrasamples=["unspecified"])
    assert len(as_rows(unspecified)) == 4
    with collecting() as said:
        assert np.array_equal(
            as_rows(png(tmp_path / "a.png", opaque))[:, 0], COLOUR.transpose(2, 0, 1)
        )
        assert not said
        assert len(as_rows(png(tmp_path / "a.png", data))) == 3
    assert len(said) == 1
    assert "a.png: its transparency varies from" in said[0]


def test_an_opaque_alpha_channel_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "_said", set())
    opaque = np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)])
    caplog.set_level("INFO", "segpipe")
    for name in ("a.png", "b.png"):
        as_rows(png(tmp_path / name, opaque))
    as_rows(tiff(tmp_path / "c.tif", opaque, photometric="rgb", extrasamples=["unassalpha"]))
    (said,) = [record for record in caplog.records if "alpha" in record.getMessage()]
    assert said.levelname == "INFO"
    assert "a.png: its alpha channel has the same value everywhere" in said.getMessage()


def test_pages_are_slices(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", STACK)
    assert np.array_equal(as_rows(path)[0], STACK)
    assert (shown_unit(path), mask_ending(path)) == ("px3", ".tif")
    colours = RNG.integers(0, 256, (4, 5, 7, 3), np.uint8)
    path = tiff(tmp_path / "a.tif", colours, photometric="rgb")
    assert np.array_equal(as_rows(path), colours.transpose(3, 0, 1, 2))
    path = tiff(tmp_path / "a.tif", GREY)
    assert (shown_unit(path), mask_ending(path)) == ("px2", ".png")


@pytest.mark.parametrize(
    ("unit", "mm"), [("um", 1e-3), ("\\u00B5m", 1e-3), ("micron", 1e-3), ("mm", 1), ("cm", 10)]
)
def test_imagej_gives_the_spacing_of_a_stack(tmp_path: Path, unit: str, mm: float) -> None:
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "spacing": 2.5, "unit": unit}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4.0, 8.0), metadata=metadata)
    assert np.allclose(read_grid(path).spacing_mm, np.multiply((0.25, 0.125, 2.5), mm), rtol=1e-6)
    assert shown_unit(path) == "mm"
    assert np.array_equal(as_rows(path)[0], STACK)


def test_channels_of_imagej_and_ome_are_channels(tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (4, 2, 5, 7)).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(as_rows(path), array.transpose(1, 0, 2, 3))
    assert shown_unit(path) == "px3"  # ImageJ gave no unit
    sizes = {
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.6,
        "PhysicalSizeZ": 2,
        "PhysicalSizeZUnit": "mm",
    }
    tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZCYX"} | sizes)
    assert np.array_equal(as_rows(path), array.transpose(1, 0, 2, 3))
    assert np.allclose(read_grid(path).spacing_mm, (0.5e-3, 0.6e-3, 2))


def test_smaller_copies_are_no_slices_and_other_pages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(GREY, photometric="minisblack", metadata=None)
        writer.write(GREY[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    assert as_rows(path).shape == (1, 1, 5, 7)
    with tifffile.TiffWriter(path) as writer:
        for page in (GREY, GREY, GREY[:3], GREY):
            writer.write(page, photometric="minisblack", metadata=None)
    for reading in (load, read_grid, load_label):
        with pytest.raises(
            DataError, match=r"a.tif: has pages of differing sizes \(7 x 5, 7 x 3\)"
        ):
            reading(path)
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(DataError, match="4 points of time"):
        load(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_images_are_upright_as_exif_says(tmp_path: Path, orientation: int, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    square = np.kron(GREY, np.ones((8, 8), np.uint8))
    if ending == ".tif":
        tiff(path, square, extratags=[(274, 3, 1, orientation, True)])
        plain = square
    else:
        tags = Image.Exif()
        tags[274] = orientation
        png(path, square, exif=tags)
        plain = np.asarray(Image.open(path))
    upright = images.to_upright(plain, orientation)
    assert np.array_equal(as_rows(path)[0, 0], upright)
    if ending != ".tif":
        from PIL import ImageOps

        assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(path))), upright)


def test_colour_spaces(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.tif")
    assert (
        np.abs(as_rows(tmp_path / "a.tif")[:, 0].transpose(1, 2, 0) - COLOUR.astype(int)).max() <= 1
    )
    smooth = np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert as_rows(tmp_path / "a.jpg").shape == (3, 1, 40, 56)
    for packed in ("jpeg", "jpeg2000", "zlib"):
        tiff(tmp_path / "b.tif", smooth, photometric="rgb", compression=packed)
        read = as_rows(tmp_path / "b.tif")[:, 0].transpose(1, 2, 0).astype(int)
        assert np.abs(read - smooth).mean() < (20 if packed == "jpeg" else 0.01)
    inverted = tiff(tmp_path / "c.tif", GREY, photometric="miniswhite")
    assert np.array_equal(as_rows(inverted)[0, 0], 255 - GREY)
    bits = tiff(tmp_path / "d.tif", GREY > 99, photometric="miniswhite")
    assert np.array_equal(as_rows(bits)[0, 0], GREY <= 99)


def test_sixteen_bits_stay(tmp_path: Path) -> None:
    import imagecodecs

    deep = RNG.integers(0, 65536, (5, 7, 3), np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    tiff(tmp_path / "a.tif", deep, photometric="rgb", predictor=True, compression="zlib")
    for name in ("a.png", "a.tif"):
        assert np.array_equal(as_rows(tmp_path / name)[:, 0], deep.transpose(2, 0, 1))
    path = png(tmp_path / "b.png", deep[..., 0])
    assert np.array_equal(as_rows(path)[0, 0], deep[..., 0])


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_palette_is_applied_to_an_image_and_kept_of_a_label(tmp_path: Path, ending: str) -> None:
    ids = RNG.integers(0, 4, (5, 7)).astype(np.uint8)
    path = tmp_path / f"a{ending}"
    for table, channels in (
        ([[0, 0, 0], [90, 90, 90], [250, 250, 250], [30, 30, 30]], 1),
        ([[0, 0, 0], [255, 0, 0], [0, 9, 8], [1, 2, 3]], 3),
    ):
        picture = Image.fromarray(ids, "P")
        picture.putpalette(np.ravel(table).tolist())
        picture.save(path)
        seen = np.asarray(table)[ids].transpose(2, 0, 1)[:channels]
        assert np.array_equal(as_rows(path)[:, 0], seen)
        assert np.array_equal(load_label(path).numpy()[0, :, :, 0].T, ids)


def test_labels_of_equal_channels_are_one_and_colours_are_listed(tmp_path: Path) -> None:
    ids = RNG.integers(0, 4, (5, 7)).astype(np.uint8)
    equal = np.dstack([ids, ids, ids])
    for path in (
        png(tmp_path / "a.png", equal),
        tiff(tmp_path / "a.tif", equal, photometric="rgb"),
    ):
        assert np.array_equal(load_label(path).numpy()[0, :, :, 0].T, ids)
    see_through = png(tmp_path / "a.png", np.dstack([equal, GREY]))
    assert np.array_equal(load_label(see_through).numpy()[0, :, :, 0].T, ids)
    red = np.zeros((5, 7, 3), np.uint8)
    red[1, 2:4] = (255, 0, 0)
    with pytest.raises(
        DataError,
        match=r"a.png: holds colours.* \(\(0, 0, 0\) in 33 voxels, \(255, 0, 0\) in 2 voxels\)",
    ):
        load_label(png(tmp_path / "a.png", red))


def test_ids_of_few_bits_are_not_spread(tmp_path: Path) -> None:
    ids = RNG.integers(0, 4, (5, 8)).astype(np.uint8)
    for depth in (2, 4):
        bits = np.unpackbits(ids[..., None], axis=2)[..., 8 - depth :].reshape(5, -1)
        rows = np.insert(np.packbits(bits, axis=1), 0, 0, axis=1)
        header = struct.pack(">IIBBBBB", 8, 5, depth, 0, 0, 0, 0)
        (tmp_path / "a.png").write_bytes(png_of(header, zlib.compress(rows.tobytes())))
        assert np.array_equal(load_label(tmp_path / "a.png").numpy()[0, :, :, 0].T, ids)


def png_of(header: bytes, data: bytes) -> bytes:
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    return content


@pytest.mark.parametrize("in_mm", [True, False])
def test_the_mask_of_a_stack_is_a_stack_on_its_grid(tmp_path: Path, in_mm: bool) -> None:
    path = tmp_path / "scan.tif"
    if in_mm:
        metadata = {"axes": "ZYX", "spacing": 2.7, "unit": "um"}
        tifffile.imwrite(path, STACK, imagej=True, resolution=(3.3, 3.3), metadata=metadata)
    else:
        tiff(path, STACK)
    ids = (STACK > 99).astype(np.uint16).T * 700
    write_mask(ids, path, tmp_path / "mask.tif", np.uint16)
    assert np.array_equal(load_label(tmp_path / "mask.tif").numpy()[0], ids)
    assert np.array_equal(read_grid(tmp_path / "mask.tif").affine, read_grid(path).affine)
    assert shown_unit(tmp_path / "mask.tif") == shown_unit(path)


def test_a_label_map_in_pixels_takes_the_millimetres_of_its_image(tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    metadata = {"axes": "ZYX", "spacing": 2.7, "unit": "um"}
    tifffile.imwrite(image, STACK, imagej=True, resolution=(4.0, 4.0), metadata=metadata)
    ids = (STACK > 99).astype(np.uint8)
    label = tiff(tmp_path / "label.tif", ids)
    case = Case("a", (image,), label)
    assert not inspect_case(case, None).findings
    assert np.array_equal(load_label(label, image).affine, read_grid(image).affine)
    smaller = tiff(tmp_path / "label.tif", ids[:, 1:])
    assert np.array_equal(load_label(smaller, image).affine, read_grid(smaller).affine)


def test_a_mask_of_one_slice_may_be_a_tiff(tmp_path: Path) -> None:
    path = tiff(tmp_path / "scan.tif", GREY)
    ids = (GREY > 99).astype(np.uint8).T[..., None]
    write_mask(ids, path, tmp_path / "mask.tif", np.uint8)
    assert np.array_equal(load_label(tmp_path / "mask.tif").numpy()[0], ids)


def broken_images(folder: Path) -> dict[str, bytes]:
    tiff(folder / "whole.tif", STACK, compression="zlib")
    tiff(folder / "plain.tif", STACK)
    png(folder / "whole.png", COLOUR)
    png(folder / "whole.jpg", np.kron(COLOUR, np.ones((8, 8, 1), np.uint8)))
    contents = {}
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        contents[f"cut_{file.name}"] = content[: len(content) * 2 // 3]
        contents[f"empty_{file.name}"] = b""
        contents[f"text_{file.name}"] = b"no image at all"
    middle = (folder / "whole.png").read_bytes()
    contents["bit.png"] = middle[:60] + bytes([middle[60] ^ 4]) + middle[61:]
    contents["bomb.png"] = png_of(struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0), b"")
    wide = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    contents["declared.png"] = png_of(wide, zlib.compress(bytes(999)))
    tiff(folder / "bomb.tif", np.zeros((8, 8), np.uint8), compression="zlib")
    bomb = (folder / "bomb.tif").read_bytes()
    with tifffile.TiffFile(folder / "bomb.tif") as opened:
        page = opened.pages.first
        offset = page.tags["StripOffsets"].valueoffset
        counted = page.tags["StripByteCounts"].valueoffset
    packed = zlib.compress(bytes(2**28), 9)
    changed = bytearray(bomb + packed)
    changed[offset : offset + 4] = struct.pack("<I", len(bomb))
    changed[counted : counted + 4] = struct.pack("<I", len(packed))
    contents["strip.tif"] = bytes(changed)
    return contents


def test_broken_images_are_one_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in broken_images(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=name) as refused:
            load(path)
        assert "\n" not in str(refused.value)
        assert "Traceback" not in caplog.text
    assert all(
        record.name == "segpipe" for record in caplog.records if record.levelno >= logging.WARNING
    )


def test_an_ending_that_lies_starts_no_other_program(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(DataError, match="cannot be read as an image"):
        load(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("stack_24_pages.tif", (1, 32, 32, 24)),
        ("multipage_12.tif", (1, 40, 48, 12)),
        ("float64.tif", (1, 40, 48, 1)),
        ("palette_grey.png", (1, 64, 64, 1)),
        ("four_channel_tiff/images/c0.tif", (4, 64, 64, 1)),
        ("tiff_stacks_train/images/c0.tif", (1, 32, 32, 24)),
    ],
)
def test_faulty_images(real_data: Path, name: str, shape: tuple[int, ...]) -> None:
    path = real_data / "faults" / name
    assert as_rows(path).shape == (shape[0], shape[3], shape[2], shape[1])
    if name == "palette_grey.png":
        with Image.open(path) as image:
            assert np.array_equal(as_rows(path)[0, 0], np.asarray(image.convert("L")))
    elif "four" not in name:
        whole = tifffile.imread(path)
        assert np.array_equal(as_rows(path)[0], whole.reshape(shape[3], shape[2], shape[1]))


def test_a_decoder_that_does_not_end_costs_its_own_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, voxels, compression="lzw")
    assert np.array_equal(read_tiff(path)[0][0, :, :, 0].T, voxels)
    assert apart._decoder is not None
    os.kill(apart._decoder.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(apart, "SECONDS", 0.5)
    with pytest.raises(DataError, match="a.tif: cannot be unpacked .the decoder crashed or did"):
        read_tiff(path)
    monkeypatch.undo()
    assert np.array_equal(read_tiff(path)[0][0, :, :, 0].T, voxels)
    apart._decoder.process.kill()
    apart._decoder.process.wait()
    assert np.array_equal(read_tiff(path)[0][0, :, :, 0].T, voxels)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match="a.tif: ") as refused:
        read_tiff(path)
    assert str(refused.value).count("a.tif") == 1
