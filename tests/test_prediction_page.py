"""The page of a folder of masks: all that was ever done there, what failed first, and no more bytes than stated."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from support import batches
from support.pages import Reader
from support.predictions import HOSTILE, done, draw, options

from segpipe.batch import predict_batch
from segpipe.checkpoint import TrainedOn, amend
from segpipe.data.cases import Case
from segpipe.data.inspection import inspect_case
from segpipe.prediction.mask_warnings import TOOK_PART
from segpipe.prediction.record_store import RecordStore
from segpipe.prediction.records import ScanRecord
from segpipe.reporting import prediction_page
from segpipe.reporting.prediction_page import write_index


def written(folder: Path, *outcomes: ScanRecord) -> Reader:
    write_index(folder, outcomes, len(outcomes), options(folder))
    page = Reader(folder / "index.html")
    assert page.problems == []
    assert page.outside == []
    return page


def test_what_failed_comes_first_and_the_worst_of_the_rest_next(tmp_path: Path) -> None:
    draw(tmp_path, "a", "b")
    page = written(
        tmp_path,
        done("a", 0.9),
        done("b", 0.8),
        ScanRecord(HOSTILE, f"{HOSTILE}.nii: 7 of 8 voxels are NaN"),
    )
    first = [row[0] for row in page.cells]
    assert first == ["scan", HOSTILE, "scan", "b", "a"]
    assert page.cells[1] == [HOSTILE, f"{HOSTILE}.nii: 7 of 8 voxels are NaN"]
    assert page.cells[2] == [
        *("scan", "picture", "Dice, mean", "Dice liver", "liver, mL (true)"),
        *("time, s", "warnings"),
    ]
    assert page.cells[3] == ["b", "", "0.800", "0.800", "2.00 (2.00)", "4.0", ""]
    assert len(page.scripts) == 1, "a name is no script"
    assert "2 scans done, 1 failed" in page.text


def test_a_scan_of_the_training_is_known_by_its_voxels_and_not_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = batches.write_scans(tmp_path, ["a", "b"])
    trained = inspect_case(Case("a", (folder / "in/a.nii.gz",), None), None).content
    data = TrainedOn("set", "", 1, 0, [trained])
    amend(folder / "some.ckpt", data=asdict(data))
    (folder / "in/a.nii.gz").rename(folder / "in/renamed.nii.gz")
    (folder / "in/b.nii.gz").rename(folder / "in/a.nii.gz")
    assert predict_batch(batches.options(folder)) == 0
    records = RecordStore(folder / "out").records
    known = [name for name, record in records.items() if TOOK_PART in record.warnings]
    assert known == ["renamed"]
    note = "1 of 2 scans took part in the training"
    assert note in caplog.text
    assert note in Reader(folder / "out/index.html").text


def test_folders_of_scans_keep_their_links_and_a_network_of_other_labels_its_columns(
    tmp_path: Path,
) -> None:
    earlier = ScanRecord("ward 3/x", images=["scans/ward 3/x.png"], labels=["vessel"], volumes_ml=[0.5], warnings=["finds no vessel"])  # fmt: skip
    page = written(tmp_path, done("a"), earlier)
    assert ("a", "ward%203/x.png") in page.addresses, "the mask of an image is an image"
    assert [row[:4] for row in page.cells[1:]] == [
        ["a", "picture", "2.00", "—"],
        ["ward 3/x", "—", "—", "0.50"],
    ]
    assert page.cells[2][-1] == "finds no vessel"


def test_beyond_the_limit_pictures_are_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_page, "PICTURES_MIB", 0.5)
    names = [f"case_{number:03d}" for number in range(20)]
    draw(tmp_path, *names)
    page = written(tmp_path, *(done(name) for name in names))
    inside = sum(name == "img" and to.startswith("data:image/webp") for name, to in page.addresses)
    assert 0 < inside < 20
    assert sum(to.startswith("overlays/") for _, to in page.addresses) == 20 - inside
    said = re.search(r"(\d+) of 20, (\d+) KiB a scan; beyond 0.5 MiB they are linked", page.text)
    assert said is not None
    assert int(said[1]) == inside
    assert (tmp_path / "index.html").stat().st_size < 1.5 * 2**20


def test_a_folder_in_which_all_failed_or_nothing_was_drawn_has_a_page_too(tmp_path: Path) -> None:
    assert [row[0] for row in written(tmp_path, ScanRecord("a", "a.nii: no such file")).cells] == [
        "scan",
        "a",
    ]
    plain = done("a")
    plain.drawn = False
    assert "overlays=false" in written(tmp_path, plain).text
