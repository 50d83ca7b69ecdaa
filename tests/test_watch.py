"""`watch=SECONDS`: scans are taken as they arrive, but none that is still written."""

import gzip
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.batches import NAMES, options, write_scans
from support.commands import Started, started

from segpipe.batch import predict_batch
from segpipe.errors import ConfigError
from segpipe.prediction.arrivals import Arrivals
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.record_store import RecordStore


@pytest.fixture
def eight(tmp_path: Path) -> Path:
    return write_scans(tmp_path)


def write(file: Path, text: str, age_s: float = 0) -> None:
    file.write_text(text)
    then = time.time() - age_s
    os.utime(file, (then, then))


def arrivals(folder: Path, rest_s: float = 60.0) -> Arrivals:
    def find() -> list[Scan]:
        return [Scan(file.name, (file,)) for file in sorted(folder.iterdir())]

    return Arrivals(find, rest_s)


def names(scans: list[Scan]) -> list[str]:
    return [scan.name for scan in scans]


def test_what_is_old_is_taken_at_once_and_only_once(tmp_path: Path) -> None:
    write(tmp_path / "old", "x", age_s=61)
    watched = arrivals(tmp_path)
    assert names(watched.look()) == ["old"]
    assert watched.look() == []


def test_what_is_still_written_waits_until_its_size_rests(tmp_path: Path) -> None:
    watched = arrivals(tmp_path)
    write(tmp_path / "new", "x")
    assert watched.look() == []
    write(tmp_path / "new", "xx")
    assert watched.look() == []
    assert names(watched.look()) == ["new"]
    assert watched.look() == []


def test_an_old_time_does_not_hide_that_a_file_grows(tmp_path: Path) -> None:
    """Some tools give a copy the time of its source from the beginning."""
    watched = arrivals(tmp_path)
    watched.look()
    write(tmp_path / "copy", "x", age_s=1000)
    assert watched.look() == []
    write(tmp_path / "copy", "xx", age_s=1000)
    assert watched.look() == []
    assert names(watched.look()) == ["copy"]


def test_what_changes_is_taken_again(tmp_path: Path) -> None:
    write(tmp_path / "scan", "x", age_s=61)
    watched = arrivals(tmp_path)
    watched.look()
    write(tmp_path / "scan", "changed")
    assert watched.look() == []
    assert names(watched.look()) == ["scan"]


def test_a_folder_of_slices_waits_for_its_last_one(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    watched = arrivals(tmp_path)
    for number in range(3):
        write(tmp_path / f"series/{number}.dcm", "x")
        assert watched.look() == []
    assert names(watched.look()) == ["series"]


def test_an_input_that_is_away_is_said_once_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a", "x", age_s=61)
    watched = arrivals(tmp_path / "in")
    assert names(watched.look()) == ["a"]
    (tmp_path / "in").rename(tmp_path / "away")
    assert watched.look() == watched.look() == []
    assert caplog.text.count("No such file or directory") == 1
    (tmp_path / "away").rename(tmp_path / "in")
    assert watched.look() == [], "it has been taken already"


@contextmanager
def watching(folder: Path, *words: str) -> Iterator[Started]:
    given = (
        f"checkpoint={folder}/some.ckpt",
        f"input={folder}/arriving",
        f"output={folder}/out",
        "device=cpu",
        "overlays=false",
        "watch=0.2",
        *words,
    )
    with started("predict.py", *given, folder=folder) as process:
        yield process


def wait_for_record(process: Started, name: str, output: Path, failed: bool = False) -> None:
    """Wait until a scan is settled, with or without success."""
    while True:
        record = RecordStore(output).records.get(name)
        if record is not None and record.failed == failed:
            return
        assert process.poll() is None, process.done()
        time.sleep(0.05)


def test_a_service_takes_what_arrives_and_ends_at_sigterm(eight: Path) -> None:
    """It begins with an empty folder; one scan is damaged, and repaired later."""
    arriving = eight / "arriving"
    arriving.mkdir()
    with watching(eight) as process:
        (eight / f"in/{NAMES[0]}.nii.gz").rename(arriving / "first.nii.gz")
        wait_for_record(process, "first", eight / "out")
        whole = (eight / f"in/{NAMES[1]}.nii.gz").read_bytes()
        (arriving / "second.nii.gz").write_bytes(whole[:1000])
        wait_for_record(process, "second", eight / "out", failed=True)
        (arriving / "second.nii.gz").write_bytes(gzip.compress(gzip.decompress(whole)))
        wait_for_record(process, "second", eight / "out")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        done = process.done()
    assert done.returncode == 143
    assert done.stderr.splitlines()[-1] == "segpipe-predict: interrupted"
    assert done.stdout.count("1 new, 0 unchanged, 0 known failures") == 2
    assert done.stdout.count("0 new, 0 unchanged, 1 failed") == 1
    rows = (eight / "out/predictions.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["first", "second"]
    assert not list((eight / "out/.segpipe/calls").iterdir())


def test_a_misspelt_folder_is_not_watched(eight: Path) -> None:
    with pytest.raises(ConfigError, match="arivals: no file matches"):
        predict_batch(options(eight, input=str(eight / "arivals"), watch=1))


@pytest.mark.parametrize("other", [{"truth": "x"}, {"collect": True}])
def test_watch_goes_without_truth_and_collect(tmp_path: Path, other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="do not go together"):
        options(tmp_path, watch=1, **other)
