"""The cache: entries are complete or absent, and found again by their content."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from support.plans import LABELS, case, plan

from segpipe.data import cache
from segpipe.data.doctor import inspect_cases
from segpipe.data.prepared_case import PreparedCase, prepare_all, prepare_case
from segpipe.errors import DataError
from segpipe.files import PART, write_lines, write_text


def test_a_prepared_case_returns_as_it_was(tmp_path: Path) -> None:
    scan = case(tmp_path)
    (entry,) = prepare_all([scan], plan(), tmp_path / "cache")
    prepared = prepare_case(scan, plan())
    loaded = PreparedCase.load(entry)
    assert torch.equal(loaded.image, prepared.image)
    assert torch.equal(loaded.label, prepared.label)
    assert all(np.array_equal(*pair) for pair in zip(loaded.indices, prepared.indices, strict=True))


def test_a_large_array_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    cache.write_entry(tmp_path / "entry", {"large": np.zeros(100_000), "none": np.empty(0)})
    arrays = cache.read_entry(tmp_path / "entry")
    assert arrays is not None
    assert isinstance(arrays["large"], np.memmap)
    assert arrays["none"].size == 0
    arrays["large"][:] = 1
    again = cache.read_entry(tmp_path / "entry")
    assert again is not None
    assert not again["large"].any()


def test_an_entry_is_named_after_content_and_settings(tmp_path: Path) -> None:
    scan = case(tmp_path)
    folder = tmp_path / "cache"
    (entry,) = prepare_all([scan], plan(), folder)
    copy = case(tmp_path, seed=0)
    assert prepare_all([copy], plan(), folder) == [entry]
    others = [
        plan("plan.spacing=[2,1,1]"),
        plan("plan.normalise=ct"),
        plan("plan.normalise=none"),
        plan(labels=LABELS | {"cyst": 7}),
    ]
    for other in others:
        assert prepare_all([scan], other, folder) != [entry]
    assert prepare_all([scan], plan("plan.patch=[8,8,8]"), folder) == [entry]
    label = bytearray(scan.label.read_bytes())  # type: ignore[union-attr]
    label[-1] = 4 - label[-1] % 2 * 4
    label[-2] = 4 - label[-2] % 2 * 4
    scan.label.write_bytes(bytes(label))  # type: ignore[union-attr]
    assert prepare_all([scan], plan(), folder) != [entry]


def test_a_prepared_case_is_not_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [case(tmp_path, seed) for seed in range(2)]
    folder = tmp_path / "cache"
    entries = prepare_all(cases, plan(), folder)
    monkeypatch.setattr(
        "segpipe.data.prepared_case.prepare_case", lambda *_: pytest.fail("prepared again")
    )
    assert prepare_all(cases, plan(), folder) == entries


def test_two_may_build_one_entry_at_once(tmp_path: Path) -> None:
    arrays = {"a": np.arange(50_000)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: cache.write_entry(tmp_path / "entry", arrays), range(16)))
    found = cache.read_entry(tmp_path / "entry")
    assert found is not None
    assert np.array_equal(found["a"], arrays["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_one_that_is_killed_leaves_no_half_entry(tmp_path: Path) -> None:
    """Entries are written in a process that is killed; each one that exists is complete."""
    program = (
        "import sys, numpy as np; from pathlib import Path; from segpipe.data import cache\n"
        "arrays = {'a': np.arange(200_000), 'b': np.arange(9)}\n"
        "for i in range(10**6): cache.write_entry(Path(sys.argv[1]) / str(i), arrays)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as process:
        while len(list(tmp_path.glob("[0-9]*"))) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    for entry in tmp_path.glob("[0-9]*"):
        found = cache.read_entry(entry)
        assert found is not None
        assert np.array_equal(found["a"], np.arange(200_000))
        assert np.array_equal(found["b"], np.arange(9))


def test_what_a_killed_run_left_is_removed_later(tmp_path: Path) -> None:
    (tmp_path / f"{PART}old").mkdir()
    (tmp_path / f"{PART}new").mkdir()
    os.utime(tmp_path / f"{PART}old", (0, 0))
    cache.remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PART}new"]


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    scan = case(tmp_path, shape=(40, 40, 40))
    folder = tmp_path / "cache"
    (entry,) = prepare_all([scan], plan(), folder)
    image = entry / "image.npy"
    image.write_bytes(image.read_bytes()[:1000])
    assert prepare_all([scan], plan(), folder) == [entry]
    assert PreparedCase.load(entry).image.shape == (1, 40, 40, 40)
    shutil.rmtree(entry)
    with pytest.raises(DataError, match="this prepared case is gone; go on with resume=RUN"):
        PreparedCase.load(entry)


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "ends.npy", "indices.npy"])
def test_a_flipped_bit_in_an_entry_is_never_trained_on(tmp_path: Path, name: str) -> None:
    scan = case(tmp_path)
    folder = tmp_path / "cache"
    (entry,) = prepare_all([scan], plan(), folder)
    whole = (entry / name).read_bytes()
    for place in (-1, len(whole) // 2, 9):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (entry / name).write_bytes(damaged)
        assert prepare_all([scan], plan(), folder) == [entry]
        assert (entry / name).read_bytes() == whole


def test_an_entry_of_an_older_version_is_made_again(tmp_path: Path) -> None:
    scan = case(tmp_path)
    (entry,) = prepare_all([scan], plan(), tmp_path / "cache")
    (entry / cache.CHECKSUMS).unlink()
    assert prepare_all([scan], plan(), tmp_path / "cache") == [entry]
    assert (entry / cache.CHECKSUMS).is_file()


def test_a_full_disk_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 10_000))
    with pytest.raises(
        DataError, match=r"the prepared cases need 0 MiB, but only 0 MiB are free: make room"
    ):
        prepare_all([case(tmp_path)], plan(), tmp_path / "cache")


def test_a_case_that_was_inspected_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [case(tmp_path, seed, ids=(0, 1, 9)) for seed in range(2)]
    first = inspect_cases(cases, [], LABELS, None, lambda: None, cache_folder=tmp_path / "cache")
    monkeypatch.setattr("segpipe.data.inspection.read", lambda _: pytest.fail("read again"))
    again = inspect_cases(cases, [], LABELS, None, lambda: None, cache_folder=tmp_path / "cache")
    for before, after in zip(first, again, strict=True):
        assert after.findings == before.findings
        assert after.findings[0].kind == "values"
        assert after.content == before.content
        assert after.ids.tolist() == before.ids.tolist() == [0, 1, 9]
        assert after.grid is not None
        assert before.grid is not None
        assert after.grid.shape == before.grid.shape
        assert np.array_equal(after.grid.affine, before.grid.affine)
        assert np.array_equal(after.foreground, before.foreground)


def test_a_text_that_cannot_be_written_is_one_line_and_leaves_what_was_there(
    tmp_path: Path,
) -> None:
    def until_full() -> Iterator[str]:
        yield "ha"
        raise OSError(errno.ENOSPC, "No space left on device")

    write_text(tmp_path / "table.csv", "whole")
    with pytest.raises(
        DataError, match=r"table.csv: cannot be written \(No space left on device\); make room"
    ):
        write_lines(tmp_path / "table.csv", until_full())
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_bytes() == b"whole"
