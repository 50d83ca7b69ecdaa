"""No file unpacks to more than its header declares, and no checksum goes unread."""

import bz2
import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.errors import DataError
from segpipe.io import unpack
from segpipe.io.unpack import Compression, read_exactly

PACK: dict[Compression, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
}
PACKED: list[Compression] = ["gzip", "zlib", "bzip2"]
MIB = 2**20


def some_bytes(size: int) -> bytes:
    return np.random.default_rng(size).integers(0, 50, size).astype(np.uint8).tobytes()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "voxels"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compression", PACK)
@given(
    sizes=st.tuples(*[st.integers(0, 2000)] * 3),
    chunk=st.integers(3, 300),
    streams=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_bytes_are_those_that_were_packed(
    tmp_path_factory: pytest.TempPathFactory,
    compression: Compression,
    sizes: tuple[int, int, int],
    chunk: int,
    streams: int,
) -> None:
    """At any offset, in chunks of any size, and of several streams behind each other."""
    offset, skip, size = sizes
    data = some_bytes(skip + size)
    packed = PACK[compression](data)
    if compression in ("gzip", "bzip2") and data:
        step = -(-len(data) // streams)
        parts = [data[first : first + step] for first in range(0, len(data), step)]
        packed = b"".join(map(PACK[compression], parts))
    path = written(tmp_path_factory.mktemp("packed"), some_bytes(offset) + packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpack, "CHUNK", chunk)
        read = read_exactly(path, offset, size, compression, skip)
    assert read.tobytes() == data[skip:]
    assert read.flags.writeable


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("declared", [1000, 3 * MIB])
def test_a_bomb_takes_no_more_than_is_declared(
    tmp_path: Path, compression: Compression, declared: int
) -> None:
    path = written(tmp_path, PACK[compression](bytes(300 * MIB)))
    tracemalloc.start()
    with pytest.raises(DataError, match=f"more than the {declared} bytes"):
        read_exactly(path, 0, declared, compression)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < declared + 3 * MIB


@pytest.mark.parametrize("compression", PACK)
def test_a_large_number_in_a_header_takes_no_memory(
    tmp_path: Path, compression: Compression
) -> None:
    path = written(tmp_path, PACK[compression](some_bytes(1000)))
    tracemalloc.start()
    with pytest.raises(DataError, match="the header declares 9007199254740992 bytes"):
        read_exactly(path, 0, 2**53, compression)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB


def test_what_does_not_fit_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, some_bytes(5000))
    monkeypatch.setattr(unpack, "available_bytes", lambda: 4000)
    with pytest.raises(DataError, match="4000 bytes of memory are free"):
        read_exactly(path, 0, 5000)


@pytest.mark.parametrize("compression", PACKED)
def test_every_flipped_bit_is_refused(tmp_path: Path, compression: Compression) -> None:
    """60 of 60; left out are bits without a meaning for voxels: time, system, block size, padding."""
    data = some_bytes(20_000)
    packed = PACK[compression](data)
    for place in np.linspace(10, len(packed) - 2, 60).astype(int):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << int(place % 8)
        with pytest.raises(DataError, match="voxels: .*get the file again"):
            read_exactly(written(tmp_path, bytes(damaged)), 0, len(data), compression)


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("kept", [0, 1, 9, 0.5, -9, -1])
def test_a_file_cut_short_is_refused(
    tmp_path: Path, compression: Compression, kept: int | float
) -> None:
    data = some_bytes(20_000)
    packed = PACK[compression](data)
    stop = int(kept * len(packed)) if isinstance(kept, float) else kept
    with pytest.raises(DataError, match="cut short|ends early"):
        read_exactly(written(tmp_path, packed[:stop]), 0, len(data), compression)


@pytest.mark.parametrize("compression", PACKED)
def test_only_zeros_may_follow(tmp_path: Path, compression: Compression) -> None:
    """Blocks of a tape are filled with zeros, behind the stream or in it; anything else is an error."""
    data, pack = some_bytes(20_000), PACK[compression]
    for content in (pack(data) + bytes(600_000), pack(data + bytes(4000))):
        assert read_exactly(written(tmp_path, content), 0, len(data), compression).tobytes() == data
    for content in (pack(data) + b"x", pack(data) + bytes(600_000) + b"x", pack(data) + pack(b"x")):
        with pytest.raises(DataError, match="more than|something else follows"):
            read_exactly(written(tmp_path, content), 0, len(data), compression)
    with pytest.raises(DataError, match="more than the 20000 bytes"):
        read_exactly(written(tmp_path, pack(data + b"x")), 0, len(data), compression)
    with pytest.raises(DataError, match="more than the 20000 bytes"):
        read_exactly(written(tmp_path, pack(data + bytes(5000))), 0, len(data), compression)


def test_bytes_after_raw_voxels_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, bytes(9000))
    read_exactly(path, 0, 3000)
    assert caplog.messages == [f"{path}: 6000 bytes after the voxels are left out"]
    caplog.clear()
    read_exactly(path, 0, 8000)
    assert not caplog.messages, "zeros fill a block"
    path.write_bytes(bytes(8000) + b"data")
    read_exactly(path, 0, 8000)
    assert caplog.messages == [f"{path}: 4 bytes after the voxels are left out"]
