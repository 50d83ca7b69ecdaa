"""The page of a run, whole or interrupted, and the same for machines."""

import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.pages import Reader
from support.run_folders import DICE, HOSTILE, LABELS, begun, done, validated

from segpipe.reporting import run_page
from segpipe.reporting.plots import BoxPanel, draw_boxes
from segpipe.reporting.run_page import write_interrupted, write_report
from segpipe.reporting.run_summary import show_run
from segpipe.reporting.viewer import ViewerBudget, viewer_case
from segpipe.training.callbacks.phases import PhaseTimer, read_phases


def written(folder: Path, stopped: str = "", shelf: ViewerBudget | None = None) -> Reader:
    write_report(folder, stopped, shelf)
    page = Reader(folder / "report.html")
    assert page.problems == []
    assert page.outside == []
    return page


def test_the_page_of_a_run_says_what_was_trained_on_what_how_well_and_how_to_repeat_it(
    tmp_path: Path,
) -> None:
    page = written(done(tmp_path / "run"))
    assert len(page.scripts) == 1, "a name is no script"
    for words in ("2 training cases, 3 validation cases; 100 steps; mean Dice 0.6", "small cases", "abc1234", "3.11.7", "data/x",
                  "python train.py name=trial seed=7", "1,234", "2 training cases", "3 validation cases", "t1, t2", f"{HOSTILE} is odd",
                  "0.675, after step 100", "the worst case: hard, mean Dice 0.400", "By the best checkpoint"):  # fmt: skip
        assert words in page.text, words
    rows = [row for row in page.cells if row[0] in DICE and row[1] in LABELS]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("hard", "vessel", "0.100"), ("hard", "liver", "0.700"), ("easy", "vessel", "0.900"), (HOSTILE, "liver", "0.900"),
        ("easy", "liver", "0.950"), (HOSTILE, "vessel", "—"),
    ]  # fmt: skip
    cases = [row for row in page.cells if row[0] in DICE and row[1] not in LABELS]
    assert [row[0] for row in cases] == ["hard", HOSTILE, "easy"]
    assert ["training", "12.5", "700"] in page.cells
    assert ["patch 8x8x8", "small cases"] in page.cells
    pictures = [
        to for name, to in page.addresses if name == "img" and to.startswith("data:image/webp")
    ]
    # two cases, the worst again, boxes, curves, volumes, fingerprint and network
    assert len(pictures) == 2 + 6
    assert "Not done" not in page.text


def test_machines_read_the_same(tmp_path: Path) -> None:
    folder = done(tmp_path / "run")
    written(folder)

    def no_number(_: str) -> None:
        pytest.fail("NaN is not JSON")

    found = json.loads((folder / "report.json").read_text(), parse_constant=no_number)
    with (folder / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(one["case"], one["label"]) for one in found["scores"]] == [
        (row["case"], row["label"]) for row in rows
    ]
    assert [one["dice"] for one in found["scores"]] == [0.95, 0.9, 0.7, 0.1, 0.9, None]
    assert found["stopped"] is None
    assert found["metrics"][1]["dice/mean"] == 0.675
    assert found["fingerprint"]["cases"][0]["name"] == "t1"
    assert {one["label"] for one in found["summary"]} == {*LABELS, "mean"}
    assert found["environment"]["revision"] == "abc1234"


def test_a_run_that_is_interrupted_has_a_page_with_what_there_is(tmp_path: Path) -> None:
    page = written(begun(tmp_path / "begun"), "interrupted")
    assert "Not done: interrupted" in page.text
    assert "No case has been validated yet." in page.text
    page = written(validated(tmp_path / "validated"), "interrupted")
    assert "By the last validation during training, after step 100." in page.text
    assert next(row for row in page.cells if row[0] in DICE) == ["hard", "vessel", "0.100"]
    assert json.loads((tmp_path / "validated/report.json").read_text())["stopped"] == "interrupted"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("a\nb")])
def test_the_page_is_written_whatever_ends_the_run_and_hides_nothing(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = validated(tmp_path / "run")
    for broken in (False, True):
        if broken:
            (folder / "report.html").unlink()
            monkeypatch.setattr(run_page, "write_page", lambda *_: 1 / 0)
        write_interrupted(folder, PhaseTimer(folder), error)
        assert (folder / "report.html").is_file() is not broken


def test_the_viewer_of_a_run_holds_the_worst_cases_that_there_is_room_for(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(24, 20, 16))
    case = viewer_case(
        "hard", volume, (volume > 1).astype(np.uint8), (volume > 2).astype(np.uint8), np.eye(4)
    )
    assert case is not None
    shelf = ViewerBudget(1.5 * case.size / 2**20)
    shelf.add(
        0.8,
        viewer_case(
            "easy", volume, (volume > 1).astype(np.uint8), (volume > 2).astype(np.uint8), np.eye(4)
        )
        or case,
    )
    shelf.add(0.1, case)
    page = written(done(tmp_path / "run"), shelf=shelf)
    assert "1 case, 0.0 MiB of at most 0.0" in page.text
    assert "without room: easy" in page.text
    assert len(page.scripts) == 1 + 4, "NiiVue, labels, one case, and the script that shows them"


def test_stages_take_their_own_time_and_a_resumed_run_adds_to_it(tmp_path: Path) -> None:
    for _ in range(2):
        stages = PhaseTimer(tmp_path)
        with stages.phase("outer"):
            time.sleep(0.02)
            with stages.phase("inner"):
                time.sleep(0.05)
        stages.save()

    def fail() -> None:
        stages.begin("left open by an error")
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"), stages.phase("outer"):
        fail()
    assert stages.running == []
    outer, inner = read_phases(tmp_path)
    assert (outer.name, inner.name) == ("outer", "inner")
    assert inner.seconds >= 0.1
    assert 0.04 <= outer.seconds < inner.seconds + 0.04
    assert outer.memory_mib is None or outer.memory_mib > 10


def test_boxes_of_labels_that_no_case_has_are_drawn_too(tmp_path: Path) -> None:
    values = {"liver": [0.5, 0.6, float("nan")], "a" * 80: [], "z": [float("nan")]}
    draw_boxes(
        [BoxPanel("Dice", values, is_share=True), BoxPanel("HD95 mm", values, is_share=False)],
        tmp_path / "boxes.png",
    )
    assert (tmp_path / "boxes.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("/home/somebody/.venv/bin/segpipe-train name=a seed=7", "segpipe-train name=a seed=7"),
        ("/home/somebody/segpipe/train.py 'data.root=a b'", "python train.py 'data.root=a b'"),
    ],
)
def test_the_command_to_repeat_a_run_names_no_folder_of_the_machine(
    tmp_path: Path, called: str, shown: str
) -> None:
    facts = json.loads((begun(tmp_path) / "environment.json").read_text()) | {"command": called}
    (tmp_path / "environment.json").write_text(json.dumps(facts))
    split = {"train": ["a"], "val": ["b", "c"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    write_report(tmp_path)
    page = Reader(tmp_path / "report.html")
    assert shown in page.text
    assert "/home/somebody" not in page.text
    assert "1 training case, 2 validation cases" in page.text


def test_a_run_of_an_installed_script_says_how_to_predict_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/segpipe-train", "seed=1"])
    show_run(done(tmp_path))
    assert "segpipe-predict checkpoint=" in capsys.readouterr().out
