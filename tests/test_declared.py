"""Files that hold more than they declare, or something else, are read rightly or refused."""

import logging
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.dicom import ENHANCED_MR, at, enhanced, save, save_series
from support.text_headers import metaimage

from segpipe.errors import DataError
from segpipe.io.volumes import load, load_label

IDS = np.random.default_rng(0).integers(0, 3, (6, 5)).astype(np.uint16)
VOXELS = np.random.default_rng(1).integers(0, 4000, (9, 7, 5)).astype(np.uint16)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def write_png(
    path: Path, array: np.ndarray, colour: int, more: bytes = b"", extra: bytes = b""
) -> Path:
    """A PNG of `(rows, columns)` or `(rows, columns, samples)`; `more` follows its pixels, packed."""
    rows, columns = array.shape[:2]
    header = struct.pack(">IIBBBBB", columns, rows, 8 * array.dtype.itemsize, colour, 0, 0, 0)
    big = array.astype(array.dtype.newbyteorder(">"))
    content = b"".join(b"\0" + row.tobytes() for row in big) + more
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(content))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    return path


def refused(path: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_ids_of_sixteen_bits_stay_whatever_the_colours(
    tmp_path: Path, colour: int, samples: int
) -> None:
    array = np.stack([IDS] * samples, -1).astype(np.uint16)
    if samples in (2, 4):
        array[..., -1] = 65535
    path = write_png(tmp_path / "label.png", array.squeeze(), colour)
    assert np.array_equal(load_label(path).numpy()[0, :, :, 0], IDS.T)


def test_a_png_holds_what_it_declares(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids = IDS.astype(np.uint8)
    path = write_png(tmp_path / "image.png", ids, 0)
    assert np.array_equal(load(path).numpy()[0, :, :, 0], ids.T)
    content = path.read_bytes()
    path.write_bytes(content + b"text")
    load(path)
    assert caplog.messages == [f"{path}: 4 bytes after its end are left out"]
    path.write_bytes(content[:-12])
    refused(path, "its pixels are damaged")
    path.write_bytes(content.replace(b"IEND\xae", b"IEND\xaf"))
    refused(path, "the checksum of b'IEND' is wrong")
    refused(write_png(path, ids, 0, more=b"\0" * 6), "more than the 36 bytes")
    refused(write_png(path, np.stack([IDS] * 3, -1), 2, more=bytes(9)), "more than the 186 bytes")
    path.write_bytes(content.replace(content[16:24], struct.pack(">II", 5, 7)))
    with pytest.raises(DataError, match=str(path)):
        load(path)


def test_a_palette_has_every_colour_that_is_used(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    table = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9]], np.uint8)
    colours, alpha = chunk(b"PLTE", table.tobytes()), chunk(b"tRNS", b"\xff\x80")
    path = write_png(tmp_path / "image.png", IDS.astype(np.uint8), 3, extra=colours + alpha)
    assert np.array_equal(load(path).numpy()[..., 0], table[IDS].transpose(2, 1, 0))
    assert not recwarn.list
    short = chunk(b"PLTE", table[:2].tobytes())
    refused(write_png(path, IDS.astype(np.uint8), 3, extra=short), "colour 2 of a palette of 2")


def with_tag(path: Path, tag: int, value: int) -> Path:
    """Another value of a tag of the first page."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags[tag].overwrite(value)
    return path


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        (258, 24, "bytes in a strip or tile, and its header declares"),
        (258, 16, "bytes in a strip or tile, and its header declares"),
        (257, 3, "bytes in a strip or tile, and its header declares"),
        (273, 0, "from byte 0 on"),
        (278, 1, "1 strips or tiles of a page .* declares 6"),
        (262, 65000, "its colours are 65000"),
    ],
)
def test_a_tiff_holds_what_it_declares(tmp_path: Path, tag: int, value: int, reason: str) -> None:
    array = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, array, photometric="minisblack", metadata=None)
    assert np.array_equal(load(path).numpy()[0, :, :, 0], array.T)
    refused(with_tag(path, tag, value), reason)


def test_complex_numbers_and_pages_of_two_orientations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, IDS.astype(np.complex64), photometric="minisblack", metadata=None)
    refused(path, "complex numbers")
    with tifffile.TiffWriter(path) as writer:
        for turned in (1, 3):
            tags = [(274, 3, 1, turned, True)]
            writer.write(IDS, photometric="minisblack", metadata=None, extratags=tags)
    refused(path, r"orientations \[1, 3\]")


def test_the_inverted_grey_of_imagej_is_only_for_display(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    stack = np.stack([IDS, IDS[::-1]])
    tifffile.imwrite(path, stack, imagej=True, photometric="miniswhite", metadata={"axes": "ZYX"})
    assert np.array_equal(load_label(path).numpy()[0], stack.T)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the size of a process")
def test_a_decoder_takes_little_more_memory_than_its_image_declares() -> None:
    """A page may pack a picture of any size, whatever its header says."""
    code = (
        "import numpy\nfrom segpipe.io.apart import _bound_memory\n_bound_memory({})\n"
        "numpy.empty(3 * 2**30, numpy.uint8)"
    )
    for declared, status in ((64, 1), (2**30, 0)):
        run = [sys.executable, "-c", code.format(declared)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
        assert ("MemoryError" in done.stderr) == bool(status)


@pytest.mark.parametrize("spacing", [[0, 0], [0, 0.7], [-1.3, -0.7], [1.3]])
def test_a_pixel_spacing_that_is_none_is_refused(tmp_path: Path, spacing: list[float]) -> None:
    folder = save_series(tmp_path / "scan", VOXELS, PixelSpacing=spacing)
    with pytest.raises(DataError, match="its pixel spacing is not two numbers"):
        load(folder)


def test_a_missing_pixel_spacing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_series(tmp_path / "scan", VOXELS, PixelSpacing=None)
    with caplog.at_level(logging.WARNING, logger="segpipe"):
        load(folder)
    assert caplog.messages == [f"{folder}: has no pixel spacing; 1 mm is taken"]


def test_frames_that_are_not_declared_are_left_out(tmp_path: Path) -> None:
    frames: list[dict[str, Any]] = [at(number) for number in range(4)]
    path = save(tmp_path / "scan/0.dcm", enhanced(VOXELS, ENHANCED_MR, frames))
    assert np.array_equal(load(path).numpy()[0], VOXELS[:, :, :4])


@pytest.mark.parametrize("size", ["3 2 1_0", "3 2 \N{ARABIC-INDIC DIGIT FIVE}"])
def test_digits_of_python_are_not_those_of_a_header(tmp_path: Path, size: str) -> None:
    path = tmp_path / "scan.mha"
    path.write_bytes(metaimage({"DimSize": size}, bytes(2000)))
    refused(path, "must be 3 whole numbers")


def test_an_error_of_the_decoder_reads_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, IDS, photometric="minisblack", metadata=None, compression="lzw")
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    refused(path, "cannot be read as TIFF")


def test_the_first_picture_of_a_camera_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grey = Image.fromarray((IDS * 80).astype(np.uint8))
    path = tmp_path / "photo.jpg"
    grey.save(path, "MPO", save_all=True, append_images=[grey.rotate(90)])
    with caplog.at_level(logging.INFO, logger="segpipe"):
        assert load(path).numpy().shape == (1, 5, 6, 1)
    assert any("further pictures" in message for message in caplog.messages)
