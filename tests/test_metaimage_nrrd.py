"""MetaImage and NRRD: the voxels and millimetres of SimpleITK and pynrrd, or one line."""

import bz2
import gzip
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nrrd as pynrrd
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.text_headers import (
    FILES,
    RAW,
    TEXT,
    VOXELS,
    hostile,
    hostile_folder,
    metaimage,
    nrrd,
)

from segpipe.errors import DataError
from segpipe.io.formats import FORMATS, format_of

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
HOSTILE = hostile()
MIB = 2**20
angles = st.tuples(*[st.floats(-180, 180)] * 3)
spacings = st.tuples(*[st.floats(0.01, 20)] * 3)
positions = st.tuples(*[st.floats(-500, 500)] * 3)
shapes = st.tuples(*[st.integers(1, 5)] * 3)
seeds = st.integers(0, 2**32)


def read_any(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = format_of(path)
    assert found is not None
    return found.read(path)


def random_voxels(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    if dtype.startswith("f"):
        return drawn.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return drawn.integers(limits.min, limits.max, shape, dtype=np.dtype(dtype), endpoint=True)


def witness(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What SimpleITK reads, as `(C, x, y, z)` and an affine to RAS+."""
    image = SimpleITK.ReadImage(str(path))
    axes = image.GetDimension()
    voxels = SimpleITK.GetArrayFromImage(image)
    voxels = voxels.reshape(*voxels.shape[:axes], -1)
    voxels = voxels.transpose(axes, *range(axes - 1, -1, -1))
    affine = np.eye(4)
    steps = np.reshape(image.GetDirection(), (axes, axes)) * image.GetSpacing()
    affine[: min(axes, 3), : min(axes, 3)] = steps[:3, :3]
    affine[: min(axes, 3), 3] = image.GetOrigin()[:3]
    return voxels.reshape(len(voxels), *(*voxels.shape[1:], 1)[:3]), TO_RAS @ affine


def assert_as_witness(path: Path) -> None:
    voxels, affine = read_any(path)
    expected, expected_affine = witness(path)
    assert voxels.dtype == expected.dtype
    assert np.array_equal(voxels, expected)
    assert np.allclose(affine, expected_affine, rtol=1e-6, atol=1e-4)
    found = format_of(path)
    assert found is not None
    shape, grid_affine = found.read_grid(path)
    assert shape == voxels.shape[1:]
    assert np.array_equal(grid_affine, affine)
    assert voxels.flags.writeable
    assert voxels.dtype.isnative


@given(
    ending=st.sampled_from([".mha", ".mhd", ".nrrd", ".nhdr"]),
    dtype=st.sampled_from(TYPES),
    shape=shapes,
    channels=st.integers(1, 4),
    turn=angles,
    spacing=spacings,
    origin=positions,
    compress=st.booleans(),
    seed=seeds,
)
@settings(deadline=None)
def test_what_simpleitk_writes(
    tmp_path_factory: pytest.TempPathFactory,
    ending: str,
    dtype: str,
    shape: tuple[int, int, int],
    channels: int,
    turn: tuple[float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    compress: bool,
    seed: int,
) -> None:
    voxels = random_voxels(seed, (*shape, channels), dtype)
    image = SimpleITK.GetImageFromArray(
        voxels if channels > 1 else voxels[..., 0], isVector=channels > 1
    )
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(Rotation.from_euler("xyz", turn, degrees=True).as_matrix().ravel().tolist())
    path = tmp_path_factory.mktemp("itk") / f"scan{ending}"
    SimpleITK.WriteImage(image, str(path), useCompression=compress)
    assert_as_witness(path)
    found = format_of(path)
    assert found is not None
    assert set(found.files(path)) == set(path.parent.iterdir())


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 1)])
def test_a_picture_is_a_slice_and_a_fourth_axis_of_one_is_dropped(
    tmp_path: Path, ending: str, shape: tuple[int, ...]
) -> None:
    image = SimpleITK.GetImageFromArray(random_voxels(0, shape[::-1], "i2"), isVector=False)
    image.SetSpacing([0.5, 0.7, 2.0, 1.0][: len(shape)])
    path = tmp_path / f"scan{ending}"
    SimpleITK.WriteImage(image, str(path))
    assert_as_witness(path)


SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "RAS": (1, 1, 1),
    "LPS": (-1, -1, 1),
}


@given(
    encoding=st.sampled_from(["raw", "gzip", "bzip2", "ASCII"]),
    endian=st.sampled_from(["little", "big"]),
    dtype=st.sampled_from(TYPES),
    shape=shapes,
    channels=st.sampled_from([None, 0, 3]),
    kind=st.sampled_from(["vector", "list", "RGB-color", None]),
    space=st.sampled_from(list(SPACES)),
    turn=angles,
    spacing=spacings,
    origin=positions,
    detached=st.booleans(),
    seed=seeds,
)
@settings(deadline=None)
def test_what_pynrrd_writes(
    tmp_path_factory: pytest.TempPathFactory,
    encoding: str,
    endian: str,
    dtype: str,
    shape: tuple[int, int, int],
    channels: int | None,
    kind: str | None,
    space: str,
    turn: tuple[float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    detached: bool,
    seed: int,
) -> None:
    order = {"little": "<", "big": ">"}[endian]
    steps = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * spacing  # columns
    directions = list(steps.T)
    kinds = ["domain"] * 3
    sizes = list(shape)
    if channels is not None:
        sizes.insert(channels, 3)
        directions.insert(channels, np.full(3, np.nan))  # written as none
        kinds.insert(channels, kind or "none")
    if encoding == "ASCII":  # pynrrd writes 17 digits, fewer than integers of 8 bytes can have
        dtype = {"i8": "i4", "u8": "u4"}.get(dtype, dtype)
    voxels = random_voxels(seed, tuple(sizes), dtype)
    header: dict[str, Any] = {
        **{
            "space": space,
            "space directions": np.array(directions),
            "space origin": np.array(origin),
        },
        **{"encoding": encoding, "endian": endian, "kinds": kinds},
    }
    path = tmp_path_factory.mktemp("nrrd") / ("scan.nhdr" if detached else "scan.nrrd")
    pynrrd.write(str(path), voxels.astype(np.dtype(dtype).newbyteorder(order)), header)
    read, affine = read_any(path)
    expected, _ = pynrrd.read(str(path))
    expected = expected[None] if channels is None else np.moveaxis(expected, channels, 0)
    assert np.array_equal(read, expected)
    right = np.eye(4)
    right[:3, :3] = steps
    right[:3, 3] = origin
    right = np.diag([*SPACES[space], 1]) @ right
    assert np.allclose(affine, right, rtol=1e-5, atol=1e-4)


METAIMAGES: dict[str, bytes] = {
    "plain": metaimage(),
    "CRLF": metaimage(end="\r\n"),
    "colons": metaimage().replace(b" =", b":", 3),
    "without spaces": metaimage().replace(b" = ", b"="),
    "comments": b"Comment = a = b\nComment = c\n\n" + metaimage(),
    "size": metaimage({"ElementSize": "2 3 4"}),
    "size and spacing": metaimage({"ElementSize": "5 6 7", "ElementSpacing": "2 3 4"}),
    "mirrored": metaimage({"ElementSpacing": "-2 3 4"}),
    "offset": metaimage({"Offset": "1 2 3"}),
    "position": metaimage({"Position": "1 2 3"}),
    "origin": metaimage({"Origin": "1 2 3"}),
    "offset and position": metaimage({"Position": "1 2 3", "Offset": "4 5 6"}),
    "matrix": metaimage({"TransformMatrix": "0 1 0 0 0 1 1 0 0", "ElementSpacing": "2 3 4"}),
    "rotation": metaimage({"Rotation": "0 1 0 0 0 1 1 0 0"}),
    "orientation": metaimage({"Orientation": "0 1 0 0 0 1 1 0 0"}),
    "skewed": metaimage({"TransformMatrix": "1 0.2 0 0 1 0 0 0 1"}),
    "rotation centre": metaimage({"CenterOfRotation": "3 4 5", "AnatomicalOrientation": "LPS"}),
    "big": metaimage({"BinaryDataByteOrderMSB": "True"}, VOXELS.astype(">i2").tobytes()),
    "big elements": metaimage({"ElementByteOrderMSB": "1"}, VOXELS.astype(">i2").tobytes()),
    "text": metaimage({"BinaryData": "False"}, TEXT),
    "text of floats": metaimage({"BinaryData": "False", "ElementType": "MET_FLOAT"}, TEXT),
    "channels": metaimage({"ElementNumberOfChannels": "2", "DimSize": "2 3 2"}),
    "array": metaimage(
        {"ElementNumberOfChannels": "2", "DimSize": "2 3 2", "ElementType": "MET_SHORT_ARRAY"}
    ),
    "zlib": metaimage(
        {"CompressedData": "True", "CompressedDataSize": str(len(zlib.compress(RAW)))},
        zlib.compress(RAW),
    ),
    "gzip": metaimage(
        {"CompressedData": "True", "CompressedDataSize": str(len(gzip.compress(RAW)))},
        gzip.compress(RAW),
    ),
    "last bytes": metaimage({"HeaderSize": "-1"}, b"xxxxxx" + RAW),
    "header size": metaimage({"HeaderSize": "200"}, b"x" * 200).ljust(200, b"x")[:200] + RAW,
    "long": metaimage({"ElementType": "MET_LONG", "DimSize": "2 3 2"}),
    "a longer file": metaimage(data=RAW + b"12345"),
    "picture": metaimage({"NDims": "2", "DimSize": "4 6", "ElementSpacing": "2 3"}),
    "file": metaimage(names="voxels.raw"),
    "file with spaces": metaimage(names="two words.raw"),
    "file below": metaimage(names="sub/voxels.raw"),
    "file packed": metaimage({"CompressedData": "True"}, names="voxels.zraw"),
    "file with a header": metaimage({"HeaderSize": "-1"}, names="longer.raw"),
    "numbered": metaimage(names="slice%02d.raw 1 4 1"),
    "list": metaimage(names="LIST\nslice01.raw\nslice02.raw\nslice03.raw\nslice04.raw", data=b""),
}
IN_LPS = {"space": "LPS", "space directions": "(0,2,0) (3,0,0) (0,0,4)", "space origin": "(1,2,3)"}
VALUES = "none (0,2,0) (3,0,0) (0,0,4)"
NRRDS: dict[str, bytes] = {
    "plain": nrrd(),
    "CRLF": nrrd(end="\r\n"),
    "first version": nrrd(magic="NRRD0001"),
    "spacings": nrrd({"spacings": "2 3 4"}),
    "mirrored": nrrd({"spacings": "-2 3 4"}),
    "edges": nrrd({"spacings": "2 3 4", "axis mins": "10 20 30"}),
    "nodes": nrrd({"spacings": "2 3 4", "axis mins": "10 20 30", "centerings": "node node cell"}),
    **{
        f"in {space}": nrrd({**IN_LPS, "space": space})
        for space in ("LPS", "RAS", "LAS", "scanner-xyz", "3D-right-handed", "3D-left-handed")
    },
    "in a space of three": nrrd({"space dimension": "3", **IN_LPS, "space": None}),
    "no origin": nrrd({**IN_LPS, "space origin": None}),
    "no directions": nrrd({"space": "RAS", "space origin": "(1,2,3)"}),
    "spaces": nrrd({**IN_LPS, "space directions": "(0, 2, 0)  ( 3,0,0) (0,0 ,4)"}),
    "vectors": nrrd(
        {
            **{"dimension": "4", "sizes": "2 2 3 2", "kinds": "vector space space space"},
            **{**IN_LPS, "space directions": VALUES},
        }
    ),
    "values last": nrrd(
        {
            **{"dimension": "4", "sizes": "2 3 2 2", "kinds": "domain domain domain list"},
            **{**IN_LPS, "space directions": "(0,2,0) (3,0,0) (0,0,4) none"},
        }
    ),
    "values between": nrrd(
        {
            **{"dimension": "4", "sizes": "2 2 3 2", "kinds": "domain list domain domain"},
            **{**IN_LPS, "space directions": "(0,2,0) none (3,0,0) (0,0,4)"},
        }
    ),
    "values without a spacing": nrrd(
        {
            **{"dimension": "4", "sizes": "1 2 3 4", "kinds": "list domain domain domain"},
            "spacings": "nan 2 3 4",
        }
    ),
    "a fourth axis": nrrd({"dimension": "4", "sizes": "2 3 4 1", "spacings": "2 3 4 5"}),
    "picture": nrrd({"dimension": "2", "sizes": "4 6", "spacings": "2 3"}),
    "coloured picture": nrrd({"sizes": "3 2 4", "kinds": "RGB-color domain domain"}),
    "placed picture": nrrd(
        {
            **{"dimension": "2", "sizes": "4 6", "space dimension": "2"},
            **{"space directions": "(0,2) (3,0)", "space origin": "(1,2)"},
        }
    ),
    "big": nrrd({"endian": "big"}, VOXELS.astype(">i2").tobytes()),
    "gzip": nrrd({"encoding": "gzip"}, gzip.compress(RAW)),
    "hex": nrrd({"encoding": "hex"}, RAW.hex(" ", 5).encode()),
    "text": nrrd({"encoding": "ascii", "endian": None}, TEXT),
    "text with commas": nrrd({"encoding": "txt"}, TEXT.replace(b" ", b", ")),
    "byte skip": nrrd({"byte skip": "5"}, b"xxxxx" + RAW),
    "byte skip to the last": nrrd({"byte skip": "-1"}, b"xxxxx" + RAW),
    "byte skip unpacked": nrrd({"byte skip": "5", "encoding": "gz"}, gzip.compress(b"xxxxx" + RAW)),
    "byte skip unpacked to the last": nrrd(
        {"byteskip": "-1", "encoding": "gz"}, gzip.compress(b"xxxxx" + RAW)
    ),
    "line skip": nrrd({"line skip": "2"}, b"ab\ncd\n" + RAW),
    "line skip packed": nrrd({"lineskip": "1", "encoding": "gz"}, b"ab\n" + gzip.compress(RAW)),
    "lines and bytes": nrrd({"line skip": "1", "byte skip": "2"}, b"ab\ncd" + RAW),
    "text after bytes": nrrd({"encoding": "text", "byte skip": "2"}, b"zz" + TEXT),
    "notes": nrrd({"type": "short\nkey:=value: 3\n# sizes: 1 1 1\nold min: 3"}),
    "capitals": nrrd().replace(b"type", b"Type").replace(b"short", b"SHORT"),
    "a longer file": nrrd(data=RAW + b"12345"),
    "file": nrrd({"data file": "voxels.raw"}, b""),
    "file beside": nrrd({"datafile": "./voxels.raw"}, b"")[:-1],
    "file packed": nrrd({"data file": "voxels.raw.gz", "encoding": "gzip"}, b""),
    "numbered": nrrd({"data file": "slice%02d.raw 1 4 1"}, b""),
    "numbered planes": nrrd({"data file": "slice%02d.raw 1 4 1 2"}, b""),
    "list": nrrd({"data file": "LIST\nslice01.raw\nslice02.raw\nslice03.raw\nslice04.raw"}, b"")[
        :-1
    ],
}


def write_data_files(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in ("voxels.raw", "two words.raw", "sub/voxels.raw"):
        (folder / name).write_bytes(RAW)
    (folder / "longer.raw").write_bytes(b"abc" + RAW)
    (folder / "voxels.zraw").write_bytes(zlib.compress(RAW))
    (folder / "voxels.raw.gz").write_bytes(gzip.compress(RAW))
    for number in range(4):
        part = RAW[number * 12 : number * 12 + 12]
        (folder / f"slice{number + 1:02}.raw").write_bytes(part)


FORMS = {
    **{f"{name}.mha": content for name, content in METAIMAGES.items()},
    **{f"{name}.nrrd": content for name, content in NRRDS.items()},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_header(tmp_path: Path, name: str) -> None:
    write_data_files(tmp_path)
    path = tmp_path / name
    path.write_bytes(FORMS[name])
    assert_as_witness(path)


@pytest.mark.parametrize("code", TYPES)
def test_every_name_of_a_type(tmp_path: Path, code: str) -> None:
    from segpipe.io.metaimage import TYPES as METAIMAGE_TYPES
    from segpipe.io.nrrd import TYPES as NRRD_TYPES

    data = random_voxels(1, (24,), code).tobytes()
    for number, name in enumerate(NRRD_TYPES[code]):
        path = tmp_path / f"{number}.nrrd"
        path.write_bytes(nrrd({"type": name}, data))
        assert_as_witness(path)
        assert read_any(path)[0].dtype == np.dtype(code)
    for name in (name for name, type_ in METAIMAGE_TYPES.items() if type_ == code):
        path = tmp_path / f"{name}.mha"
        path.write_bytes(metaimage({"ElementType": name}, data))
        assert_as_witness(path)


def test_what_simpleitk_cannot_read(tmp_path: Path) -> None:
    """bzip2, and values whose axis is known by its lack of a direction alone."""
    path = tmp_path / "scan.nrrd"
    path.write_bytes(nrrd({"encoding": "bz2"}, bz2.compress(RAW)))
    assert np.array_equal(read_any(path)[0].ravel(order="F"), VOXELS)
    directions = {**IN_LPS, "space directions": VALUES}
    path.write_bytes(nrrd({**directions, "dimension": "4", "sizes": "2 2 3 2"}))
    voxels, affine = read_any(path)
    assert np.array_equal(voxels, VOXELS.reshape(2, 2, 3, 2, order="F"))
    assert np.array_equal(affine @ [1, 1, 1, 1], [-4, -4, 7, 1])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.mha", metaimage({"DistanceUnits": "um", "ElementSpacing": "500 500 2000"})),
        ("a.nrrd", nrrd({"spacings": "500 500 2000", "units": '"um" "um" "um"'})),
        (
            "b.nrrd",
            nrrd(
                {
                    **{"space": "RAS", "space directions": "(.0005,0,0) (0,.0005,0) (0,0,.002)"},
                    "space units": '"m" "m" "m"',
                }
            ),
        ),
    ],
)
def test_the_unit_of_a_header_is_honoured(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert np.allclose(np.abs(np.diag(read_any(path)[1])), [0.5, 0.5, 2, 1])


@pytest.mark.parametrize(
    ("name", "content", "warned"),
    [
        ("a.mha", metaimage({"DistanceUnits": "inch"}), True),
        ("b.mha", metaimage({"DistanceUnits": "?"}), False),
        ("c.nrrd", nrrd({"spacings": "1 1 1", "units": '"inch" "inch" "inch"'}), True),
        ("d.nrrd", nrrd({"spacings": "1 1 1", "units": '"" "" "none"'}), False),
    ],
)
def test_a_unit_that_is_not_known_is_said(
    tmp_path: Path, name: str, content: bytes, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    read_any(path)
    assert ("its unit 'inch' is not known; mm are assumed" in caplog.text) == warned


def test_a_slope_is_said_and_not_applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scan.mha"
    path.write_bytes(metaimage({"ElementToIntensityFunctionSlope": "2"}))
    assert_as_witness(path)
    assert "its ElementToIntensityFunctionSlope is not applied" in caplog.text


@pytest.mark.parametrize("header", ["scan.mhd", "scan.nhdr"])
def test_all_files_of_the_voxels_are_named(tmp_path: Path, header: str) -> None:
    """Else a mask would stay when the voxels change beside their header."""
    write_data_files(tmp_path)
    path = tmp_path / header
    slices = [tmp_path / f"slice{number:02}.raw" for number in (1, 2, 3, 4)]
    for value, expected in (
        ("voxels.raw", [tmp_path / "voxels.raw"]),
        ("slice%02d.raw 1 4 1", slices),
        ("slice%02d.raw 1 4 3", [slices[0], slices[3]]),
    ):
        changes = {"data file": value}
        content = metaimage(names=value, data=b"") if "mhd" in header else nrrd(changes, b"")
        path.write_bytes(content)
        found = format_of(path)
        assert found is not None
        assert found.files(path) == [path, *expected]
    linked = tmp_path / "links"
    linked.mkdir()
    (linked / header).symlink_to(path)
    (linked / "slice01.raw").symlink_to(slices[0])
    (linked / "slice04.raw").symlink_to(slices[3])
    found = format_of(path)
    assert found is not None
    assert len(found.files(linked / header)) == 3


@contextmanager
def limited(seconds: int, mib: int) -> Iterator[None]:
    """Fail what takes longer on a free processor, or more memory, or never ends."""

    def too_long(*_: object) -> None:
        raise TimeoutError("does not end")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(10 * seconds)
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * MIB
        assert time.process_time() - started < seconds
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        tracemalloc.stop()


def test_the_hostile_set_is_large() -> None:
    assert len(HOSTILE) > 200


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    folder = hostile_folder(tmp_path / "above/scans")
    path = folder / name
    HOSTILE[name](path)
    (found,) = (format_ for format_ in FORMATS if path.suffix in format_.endings)
    with limited(seconds=10, mib=64):
        with pytest.raises(DataError) as refused:
            found.read(path)
        for function in (found.read_grid, found.files):
            with suppress(DataError):
                function(path)
    message = str(refused.value)
    assert message.isprintable()
    assert str(path.parent) in message
    assert len(message) < 600 + len(str(path))


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_no_file_of_the_machine_becomes_voxels(tmp_path: Path, ending: str) -> None:
    """Not even one voxel, for which any file is large enough."""
    folder = hostile_folder(tmp_path / "above/scans")
    path = folder / f"scan{ending}"
    found = format_of(path)
    assert found is not None
    for name, value in FILES.items():
        if ending == ".mhd":
            path.write_bytes(metaimage({"DimSize": "1 1 1"}, names=value, data=b""))
        else:
            path.write_bytes(nrrd({"sizes": "1 1 1", "data file": value}, b""))
        with limited(seconds=10, mib=64):
            if name == "short":
                assert found.read(path)[0].size == 1
            else:
                with pytest.raises(DataError):
                    found.read(path)


@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.sampled_from([*METAIMAGES.values(), *NRRDS.values()]),
    ),
    places=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 400),
    ending=st.sampled_from([".mha", ".nrrd"]),
)
@settings(deadline=None)
def test_damaged_headers_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    places: list[tuple[int, int]],
    cut: int,
    ending: str,
) -> None:
    damaged = bytearray(content)
    for place, value in places:
        if place < len(damaged):
            damaged[place] = value
    path = tmp_path_factory.mktemp("damaged") / f"scan{ending}"
    path.write_bytes(bytes(damaged[: max(len(damaged) - cut // 8, 0)]))
    with suppress(DataError):
        voxels, affine = read_any(path)
        assert voxels.ndim == 4
        assert np.isfinite(affine).all()


def test_headers_are_read_without_native_code() -> None:
    code = "import sys, segpipe.io.metaimage, segpipe.io.nrrd; sys.exit('SimpleITK' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
