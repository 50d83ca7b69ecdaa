"""The verdict on scores: its level, its words, and where it is shown."""

import json
import logging
from pathlib import Path

import pytest
from support.pages import Reader
from support.run_folders import done

from segpipe.metrics import Score, write_scores
from segpipe.reporting.run_page import write_report
from segpipe.reporting.run_summary import show_run
from segpipe.verdict import judge

NAN = float("nan")


def scores(**dice_by_label: list[float]) -> list[Score]:
    """Return scores of cases `c0`, `c1`, ... whose truth has each label; NaN: neither mask has it.

    A prediction is empty where the Dice is 0.
    """
    made: list[Score] = []
    for label, dice in dice_by_label.items():
        for number, value in enumerate(dice):
            truth_ml = 0.0 if value != value else 1.0
            volume_ml = 1.0 if value > 0 else 0.0
            made.append(Score(f"c{number}", label, {"dice": value}, volume_ml, truth_ml))
    return made


@pytest.mark.parametrize(
    ("given", "level", "words"),
    [
        ({"liver": [0.9, 0.8]}, "works", "Works: mean Dice 0.850 in 2 validation cases."),
        ({"liver": [0.5]}, "works", "Works: mean Dice 0.500 in 1 validation case."),
        ({"liver": [0.9], "vessel": [0.6]}, "works", "lowest: vessel, 0.600"),
        ({"liver": [0.9], "vessel": [0.49]}, "weak", "Weak: low Dice: vessel 0.49; mean Dice"),
        (
            {"liver": [0.9, 0.9, 0.9], "vessel": [0.0, 0.0, NAN]},
            "weak",
            "Weak: never found: vessel (0 of 2 cases); mean Dice 0.450",
        ),
        # a few stray voxels are no find
        ({"liver": [0.9], "vessel": [0.009]}, "weak", "never found: vessel (0 of 1 case)"),
        ({"liver": [0.09, 0.1], "vessel": [0.0]}, "nothing", "no label reaches a Dice of 0.1"),
        ({"liver": [0.0], "vessel": [0.0]}, "nothing", "not one label was found: liver, vessel"),
        ({"liver": [0.9], "vessel": [NAN]}, "works", "in no case, so not judged: vessel"),
    ],
)
def test_the_level_and_the_words(given: dict[str, list[float]], level: str, words: str) -> None:
    verdict = judge(scores(**given), "training")
    assert verdict is not None
    assert verdict.level == level
    assert words in verdict.sentence
    assert bool(verdict.advice) == (level != "works")


def test_longer_training_is_the_first_advice_and_labels_are_named() -> None:
    verdict = judge(scores(a=[0.9], b=[0.0], c=[0.3]), "training")
    assert verdict is not None
    assert verdict.advice[0].startswith("Train longer (trainer.max_time)")
    assert verdict.advice[1].startswith("Look at b, c in the pictures")


def test_the_labels_are_fields() -> None:
    verdict = judge(scores(a=[0.9, 0.9], b=[0.0, 0.0], c=[0.3, 0.3], d=[NAN, NAN]), "batch")
    assert verdict is not None
    assert verdict.never_found == ["b"]
    assert verdict.weak == ["c"]
    assert verdict.not_judged == ["d"]
    assert verdict.cases == 2
    assert verdict.mean_dice == pytest.approx(0.4)


def test_false_alarms_lower_a_label_but_are_no_cases_that_have_it() -> None:
    alarm = Score("c1", "a", {"dice": 0.0}, 3.0, 0.0)
    verdict = judge([*scores(a=[0.8]), alarm], "training")
    assert verdict is not None
    assert (verdict.level, verdict.weak, verdict.never_found) == ("weak", ["a"], [])
    assert judge([alarm], "training") is None, "no case has the label"
    assert judge([], "training") is None


def test_labels_beyond_the_first_few_are_counted() -> None:
    verdict = judge(scores(**{f"l{n}": [0.0] for n in range(9)}, x=[0.9]), "training")
    assert verdict is not None
    assert "l4 (0 of 1 case) and 4 more" in verdict.sentence
    assert len(verdict.never_found) == 9


def test_it_stands_first_on_the_page_of_a_run_last_in_the_terminal_and_in_the_json(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = done(tmp_path / "run")
    write_scores(scores(liver=[0.9], vessel=[0.0]), folder / "validation.csv")
    write_report(folder)
    page = Reader(folder / "report.html")
    assert page.problems == []
    words = "Weak: never found: vessel (0 of 1 case)"
    assert page.text.index(words) < page.text.index("validation.csv")
    assert page.text.index(words) < page.text.index("1,234"), "before the parameters"
    assert '<section class="verdict bad"' in (folder / "report.html").read_text()
    stored = json.loads((folder / "report.json").read_text())["verdict"]
    assert (stored["level"], stored["never_found"]) == ("weak", ["vessel"])
    assert "mode=doctor" in " ".join(stored["advice"])
    with caplog.at_level(logging.INFO, logger="segpipe"):
        show_run(folder)
    verdict = next(record for record in caplog.records if words in record.getMessage())
    assert (verdict.levelname, verdict.style) == ("WARNING", "bold red")
    assert "predict.py" in caplog.records[0].getMessage()


def test_a_run_that_works_is_green_and_one_that_is_not_scored_has_no_verdict(
    tmp_path: Path,
) -> None:
    folder = done(tmp_path / "run")
    write_scores(scores(liver=[0.9]), folder / "validation.csv")
    write_report(folder)
    assert '<section class="verdict good"' in (folder / "report.html").read_text()
    (folder / "validation.csv").unlink()
    write_report(folder, stopped="interrupted")
    assert "<section" not in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text())["verdict"] is None


@pytest.mark.parametrize(
    ("called", "words"),
    [("/usr/bin/segpipe-train", "segpipe-predict "), ("/x/train.py", "python predict.py ")],
)
def test_prediction_is_advised_by_the_kind_of_program_that_trained(
    called: str,
    words: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", [called])
    with caplog.at_level(logging.INFO, logger="segpipe"):
        show_run(done(tmp_path / "run"))
    assert f"predict  {words}" in caplog.records[0].getMessage()


def test_what_follows_a_run_is_on_the_page_in_the_terminal_and_in_the_json(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = done(tmp_path / "run")
    write_scores(scores(liver=[0.9, 0.8]), folder / "validation.csv")
    write_report(folder)
    page = Reader(folder / "report.html")
    chosen_on = "The best checkpoint was chosen on these 2 validation cases"
    assert chosen_on in page.text
    assert "input=SCANS output=MASKS" in page.text
    assert "longer training" not in page.text, "there was one validation"
    said = json.loads((folder / "report.json").read_text())["next"]
    assert [chosen_on in note for note in said["notes"]] == [True]
    assert said["predict"].endswith("input=SCANS output=MASKS")
    rising = "2,150,0.7,0.004,0.9,0.6,0.75\n"
    (folder / "metrics.csv").write_text((folder / "metrics.csv").read_text() + rising)
    with caplog.at_level(logging.INFO, logger="segpipe"):
        show_run(folder)
    assert "a longer training (trainer.max_time) may help" in caplog.text

    write_scores(scores(liver=[0.0, 0.0]), folder / "validation.csv")
    write_report(folder)
    assert json.loads((folder / "report.json").read_text())["next"] == {"notes": [], "predict": ""}
