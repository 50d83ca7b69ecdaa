"""A record for each scan: what is kept, what is damaged, and what others have written."""

import json
from pathlib import Path

import pytest
from support.pages import Reader
from support.predictions import done, options

from segpipe.config.predict import Predict
from segpipe.errors import ConfigError
from segpipe.files import write_lines
from segpipe.metrics import METRICS, Score
from segpipe.prediction.calls import Calls
from segpipe.prediction.record_store import FOLDER, MANIFEST, RecordStore, rows_of
from segpipe.prediction.records import ScanRecord, key_of
from segpipe.reporting import prediction_views
from segpipe.reporting.collecting import collect
from segpipe.reporting.prediction_page import write_index
from segpipe.reporting.prediction_views import Views
from segpipe.stored import SCHEMA


def record_files(output: Path) -> list[Path]:
    return sorted((output / FOLDER).rglob("*.json"))


def scored(name: str) -> ScanRecord:
    """Return a record with a score in every metric, since NaN differs from itself."""
    record = done(name)
    record.scores = [Score(name, "liver", dict.fromkeys(METRICS, 0.5), 2.0, 2.5)]
    return record


def collecting(output: Path, **changed: object) -> Predict:
    asked = {"collect": True, "checkpoint": None, "input": None, **changed}
    return options(output).model_copy(update=asked)


def test_records_of_two_calls_are_one_set(tmp_path: Path) -> None:
    first = RecordStore(tmp_path)
    second = RecordStore(tmp_path)
    first.write(scored("a"))
    second.write(ScanRecord("ward 3/ü", "no such file"))
    assert first.latest("ward 3/ü") == second.records["ward 3/ü"]
    second.refresh()
    assert second.records == first.records == RecordStore(tmp_path).records


def test_a_scan_costs_one_small_file_however_many_there_are(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    for number in range(50):
        store.write(done(f"case {number}"))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    store.write(done("one more"))
    after = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    changed = [file for file in after if before.get(file) != after[file]]
    assert [file.stem for file in changed] == [key_of("one more")]


def test_a_flipped_bit_in_a_record_is_never_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RecordStore(tmp_path).write(done("a", 0.75))
    file = record_files(tmp_path)[0]
    whole = file.read_bytes()
    believed = RecordStore(tmp_path).records["a"]
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << place % 7
        file.write_bytes(content)
        found = RecordStore(tmp_path).records
        assert found in ({}, {"a": believed}), f"byte {place}"
    assert "is damaged and ignored" in caplog.text


def test_a_record_under_another_name_is_ignored(tmp_path: Path) -> None:
    RecordStore(tmp_path).write(done("a"))
    file = record_files(tmp_path)[0]
    file.rename(file.with_name(f"{key_of('b')}.json"))
    assert RecordStore(tmp_path).records == {}


def test_a_record_of_a_newer_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.prediction.record_store.SCHEMA", SCHEMA + 1)
    RecordStore(tmp_path).write(done("a"))
    with pytest.raises(ConfigError, match=f"newer segpipe .schema {SCHEMA + 1}"):
        RecordStore(tmp_path)


def test_a_folder_with_a_manifest_alone_gets_its_records(tmp_path: Path) -> None:
    records = {"b": scored("b"), "a": ScanRecord("a", "a.nii: no such file")}
    write_lines(tmp_path / MANIFEST, rows_of(records))
    assert RecordStore(tmp_path).records == records
    (tmp_path / MANIFEST).write_text("{}")
    assert RecordStore(tmp_path).records == records
    assert len(record_files(tmp_path)) == 2
    assert not list(tmp_path.glob(".segpipe-part-*"))


def test_views_are_made_from_all_records_and_not_after_every_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    usual = prediction_views.write_predictions

    def counted(path: Path, records: list[ScanRecord]) -> None:
        written.append(len(records))
        usual(path, records)

    monkeypatch.setattr(prediction_views, "write_predictions", counted)
    store = RecordStore(tmp_path)
    views = Views(tmp_path, store, Calls(tmp_path), options(tmp_path), 20)
    for number in range(20):
        store.write(done(f"case {number:02d}"))
        views.update()
    assert written == [1]
    RecordStore(tmp_path).write(done("of another call"))
    views.finish()
    assert written == [1, 21]
    rows = json.loads((tmp_path / MANIFEST).read_text())["scans"]
    assert [row["name"] for row in rows] == sorted(store.records)


def test_collect_says_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="segpipe")
    output = tmp_path / "out"
    output.mkdir()
    with pytest.raises(ConfigError, match="holds no records of predictions"):
        collect(collecting(output))
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / f"in/{name}.nii.gz").touch()
    store = RecordStore(output)
    for name in "ab":
        record = done(name)
        record.files = {f"{name}.nii.gz": "0" * 32}
        store.write(record)
    (output / "a.nii.gz").touch()
    assert collect(collecting(output, input=str(tmp_path / "in"))) == 3
    assert "1 scan: not done yet: c" in caplog.text
    assert "1 scan: their masks are gone: b" in caplog.text
    (output / "b.nii.gz").touch()
    assert collect(collecting(output)) == 0
    assert "2 scans done, 0 failed" in Reader(output / "index.html").text


def test_many_scans_are_on_several_pages(tmp_path: Path) -> None:
    failed = [ScanRecord(f"bad {number}", "no such file") for number in range(10)]
    records = [*failed, *(done(f"case {number:03d}") for number in range(640))]
    for record in records:
        record.drawn = False
    write_index(tmp_path, records, len(records), options(tmp_path), is_final=False)
    assert not (tmp_path / "index_2.html").exists()
    write_index(tmp_path, records, len(records), options(tmp_path))
    shown: list[str] = []
    for number, name in enumerate(("index.html", "index_2.html", "index_3.html")):
        page = Reader(tmp_path / name)
        assert page.problems == page.outside == []
        rows = [row[0] for row in page.cells if row[0] != "scan"]
        assert len(rows) == (300, 300, 50)[number]
        shown += rows
    assert shown == [record.name for record in records]
    targets = {to for _, to in Reader(tmp_path / "index_2.html").addresses}
    assert {"index.html", "index_3.html"} <= targets
