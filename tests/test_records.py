"""The records of a folder of predictions and its manifest, over versions."""

import json
import logging
import math
from pathlib import Path

import pytest
from support.predictions import done

from segpipe.errors import ConfigError
from segpipe.files import write_lines
from segpipe.metrics import METRICS, Score
from segpipe.prediction.record_store import MANIFEST, read_manifest, rows_of
from segpipe.prediction.records import ScanRecord
from segpipe.stored import SCHEMA


def write_manifest(folder: Path, content: object) -> None:
    (folder / MANIFEST).write_text(json.dumps(content))


def test_records_read_back_as_they_were_written(tmp_path: Path) -> None:
    records = {"b": done("b", 0.9), "a": ScanRecord("a", "a.nii: no such file")}
    values = dict.fromkeys(METRICS, 0.5)
    records["b"].scores = [Score("b", "liver", values, 2.0, 2.5)]
    write_lines(tmp_path / MANIFEST, rows_of(records))
    assert read_manifest(tmp_path / MANIFEST) == records
    content = json.loads((tmp_path / MANIFEST).read_text())
    assert content["schema"] == SCHEMA
    assert [row["name"] for row in content["scans"]] == ["a", "b"]


def test_a_manifest_of_the_first_version_gets_the_defaults_of_later_fields(tmp_path: Path) -> None:
    score = {"case": "a", "label": "liver", "dice": 0.5}
    write_manifest(tmp_path, {"scans": [{"name": "a", "volumes_ml": [2.0], "scores": [score]}]})
    record = read_manifest(tmp_path / MANIFEST)["a"]
    assert record.volumes_ml == [2.0]
    assert record.ids == []
    assert not record.drawn
    assert record.scores[0].dice == 0.5
    assert math.isnan(record.scores[0].nsd)


def test_unknown_fields_are_ignored_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    score = {"case": "a", "label": "liver", "dice": 0.5, "sharpness": 1}
    rows = [{"name": name, "mood": "good", "scores": [score]} for name in ("a", "b")]
    write_manifest(tmp_path, {"schema": SCHEMA, "scans": rows})
    with caplog.at_level(logging.INFO, "segpipe"):
        assert list(read_manifest(tmp_path / MANIFEST)) == ["a", "b"]
    assert caplog.messages == [f"{tmp_path / MANIFEST}: ignored unknown fields: mood, sharpness"]


def test_a_manifest_of_a_later_version_is_refused_in_one_line(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"schema": SCHEMA + 1, "scans": []})
    with pytest.raises(ConfigError, match=f"newer segpipe .schema {SCHEMA + 1}") as refused:
        read_manifest(tmp_path / MANIFEST)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [{}, [], {"scans": [{}]}, {"scans": 1}, {"scans": ["a"]}])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: object) -> None:
    write_manifest(tmp_path, content)
    with pytest.raises(
        ConfigError, match=r"is not what segpipe writes \(.*\); choose another output"
    ):
        read_manifest(tmp_path / MANIFEST)
