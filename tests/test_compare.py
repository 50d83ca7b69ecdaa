"""Systems of any origin compared case by case: common cases, leaks, intervals, margins and pictures."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import wilcoxon
from support import predictions
from support.commands import command
from support.pages import Reader
from support.run_folders import begun

from segpipe.config.compare import Compare
from segpipe.config.compose import defaults
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.intervals import Interval
from segpipe.metrics import Score, write_scores
from segpipe.prediction.record_store import MANIFEST, rows_of
from segpipe.study.answer import answer
from segpipe.study.comparison import compare_systems
from segpipe.study.evidence import Evidence
from segpipe.study.findings import findings
from segpipe.study.statistics import inferiority
from segpipe.text import MINUS, decimal

Dice = dict[str, float]
CASES = [f"case_{number:02d}" for number in range(24)]


def planted(seed: int, gain: float = 0.0, cases: list[str] = CASES) -> Dice:
    rng = np.random.default_rng(seed)
    hard = {case: 0.8 - 0.01 * CASES.index(case) for case in cases if case in CASES}
    return {case: hard.get(case, 0.5) + gain + rng.normal(0, 0.005) for case in cases}


def scores_of(dice: Dice, label: str = "liver", truth_ml: float = 2.0) -> list[Score]:
    found: list[Score] = []
    for case, value in dice.items():
        values = {"dice": value, "iou": value / 2, "hd95_mm": 3.0, "assd_mm": 1.0, "nsd": value}
        found.append(Score(case, label, values, 2.1, truth_ml))
    return found


def table(folder: Path, dice: Dice, **about: Any) -> Path:
    folder.mkdir(parents=True)
    write_scores(scores_of(dice, **about), folder / "scores.csv")
    return folder / "scores.csv"


def run_folder(folder: Path, dice: Dice, train: list[str]) -> Path:
    begun(folder)
    (folder / "split.json").write_text(json.dumps({"train": train, "val": list(dice)}))
    write_scores(scores_of(dice), folder / "validation.csv")
    (folder / "curves.png").touch()
    (folder / "report.json").write_text("{}")
    return folder


def compare(root: Path, *systems: Path, **given: Any) -> Evidence:
    values = {"systems": list(map(str, systems)), "output": str(root / "out")}
    return compare_systems(validate(Compare, defaults("compare") | values | given))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_figures_are_those_of_an_independent_computation(tmp_path: Path) -> None:
    one, other = planted(0), planted(1, -0.03)
    paths = [table(tmp_path / "ours", one), table(tmp_path / "theirs", other)]
    evidence = compare(tmp_path, *paths)
    expected = np.array([other[case] - one[case] for case in CASES])
    (found,) = evidence.comparisons
    interval = found.differences["dice"].interval
    assert interval.mean == pytest.approx(expected.mean())
    drawn = np.random.default_rng(5).choice(expected, (20_000, len(expected))).mean(1)
    assert (interval.low, interval.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=4e-4)  # fmt: skip
    raw = wilcoxon(expected, zero_method="pratt").pvalue
    assert found.p["dice"] == pytest.approx(2 * raw), "Holm, of Dice and NSD, which are alike here"
    assert {row["case"]: float(row["theirs"]) for row in rows(tmp_path / "out/cases.csv")} == pytest.approx(other)  # fmt: skip
    (line,) = [row for row in rows(tmp_path / "out/compare.csv") if row["system"] == "theirs" and row["label"] == "mean"]  # fmt: skip
    assert float(line["dice_difference"]) == pytest.approx(expected.mean())


def test_sentence_table_and_csv_have_one_sign(tmp_path: Path) -> None:
    paths = [table(tmp_path / "ours", planted(0)), table(tmp_path / "theirs", planted(1, -0.03))]
    (sentence,) = findings(compare(tmp_path, *paths))
    mean = float(rows(tmp_path / "out/compare.csv")[-1]["dice_difference"])
    assert mean < 0
    shown = decimal(100 * mean, 1)
    assert sentence.startswith(
        f"Taking theirs in place of ours changes Dice by {shown}\xa0({MINUS}"
    )
    page = Reader(tmp_path / "out/compare.html")
    assert page.problems == []
    assert page.outside == []
    assert sentence in page.text
    (row,) = [row for row in page.cells if row[:2] == ["B: theirs", "24"]]
    assert row[3].startswith(f"{shown}\xa0({MINUS}")
    assert sentence in (tmp_path / "out/compare.md").read_text()
    latex = (tmp_path / "out/compare.tex").read_text()
    assert "tab:differences" in latex
    assert "tab:systems" in latex


def test_runs_of_different_splits_meet_on_the_cases_that_neither_trained_on(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "one", planted(0, cases=CASES[:16]), CASES[16:])
    other = run_folder(tmp_path / "other", planted(1, cases=CASES[8:]), CASES[:4])
    evidence = compare(tmp_path, one, other)
    assert evidence.comparisons[0].differences["dice"].cases == 8
    left_out = {row["case"]: row["left out"] for row in rows(tmp_path / "out/cases.csv") if row["left out"]}  # fmt: skip
    assert left_out == (
        dict.fromkeys(CASES[:4], "trained other")
        | dict.fromkeys(CASES[4:8], "not scored by other")
        | dict.fromkeys(CASES[16:], "trained one")
    )
    page = Reader(tmp_path / "out/compare.html")
    assert "Compared on the 8 cases that all have (one has 16, other has 16)." in page.text
    assert "12 cases left out since they trained one of the networks" in page.text
    assert "is not known here" not in page.text


def test_masks_of_a_case_that_trained_the_other_network_are_a_leak(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", planted(0, cases=CASES[:12]), CASES[12:])
    masks = table(tmp_path / "masks", planted(1))
    evidence = compare(tmp_path, masks, run)
    assert evidence.comparisons[0].differences["dice"].cases == 12
    assert set(evidence.problems.values()) == {"trained run"}
    assert (
        "Which cases trained masks is not known here" in (tmp_path / "out/compare.md").read_text()
    )


def test_cases_with_another_truth_are_left_out(tmp_path: Path) -> None:
    one = table(tmp_path / "one", planted(0))
    other = tmp_path / "other"
    other.mkdir()
    scores = scores_of(planted(1, cases=CASES[1:])) + scores_of({CASES[0]: 0.9}, truth_ml=2.4)
    write_scores(scores, other / "scores.csv")
    evidence = compare(tmp_path, one, other)
    assert evidence.problems == {
        CASES[0]: "its truth has 2 mL of liver in one, but 2.4 mL in other"
    }
    assert evidence.comparisons[0].differences["dice"].cases == 23


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.009, 0.02, "not inferior"), (-0.02, 0.004, "open"), (-0.03, -0.011, "inferior")],
)
def test_inferiority_is_where_the_interval_lies(low: float, high: float, expected: str) -> None:
    assert inferiority(Interval((low + high) / 2, low, high), 0.01) == expected


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (-0.001, "By a margin of 1 Dice point, theirs is not inferior to ours."),
        (-0.010, "Whether theirs is inferior to ours by more than 1 Dice point stays open"),
        (-0.030, "By a margin of 1 Dice point, theirs is inferior to ours."),
    ],
)
def test_a_margin_is_judged_in_words(tmp_path: Path, gain: float, words: str) -> None:
    paths = [table(tmp_path / "ours", planted(0)), table(tmp_path / "theirs", planted(0, gain))]
    rng = np.random.default_rng(3)
    noisy = {case: value + gain + rng.normal(0, 0.004) for case, value in planted(0).items()}
    write_scores(scores_of(noisy), paths[1])
    (sentence,) = findings(compare(tmp_path, *paths, margin=0.01))
    assert words in sentence


def test_there_is_no_sentence_where_cases_are_few_or_the_reference_found_nothing(
    tmp_path: Path,
) -> None:
    few = [table(tmp_path / name, planted(0, cases=CASES[:5])) for name in ("a", "b")]
    evidence = compare(tmp_path, *few, margin=0.01)
    assert findings(evidence) == []
    verdict = answer(evidence)
    assert (verdict.level, verdict.colour) == ("weak", "weak")
    assert "5 cases are too few for a test" in verdict.sentence
    assert np.isnan(evidence.comparisons[0].p["dice"])
    page = Reader(tmp_path / "out/compare.html")
    assert "not inferior" not in page.text.split("Methods")[0]
    assert not any("effect" in row or "p, Holm" in row for row in page.cells), "none is known"
    nothing = table(tmp_path / "nothing", dict.fromkeys(CASES, 0.02))
    evidence = compare(tmp_path, nothing, table(tmp_path / "works", planted(0)))
    assert findings(evidence) == []
    verdict = answer(evidence)
    assert verdict.colour == "bad"
    assert "the reference, A (nothing), has found nothing (mean Dice 0.020)" in verdict.sentence
    assert "reference=works" in verdict.advice[0]
    (sentence,) = findings(compare(tmp_path, nothing, tmp_path / "works", reference="works"))
    assert sentence.startswith("Taking nothing in place of works changes Dice by " + MINUS)


def test_masks_of_predict_are_compared_and_the_cases_that_differ_most_are_shown(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "predicted"
    records = {case: predictions.done(case, value) for case, value in planted(1, -0.02).items()}
    table(folder, planted(1, -0.02))
    predictions.draw(folder, *CASES)
    (folder / MANIFEST).write_text("".join(rows_of(records)))
    other = planted(0) | {CASES[5]: 0.1, CASES[7]: 0.3}
    paths = [folder, table(tmp_path / "ours", other)]
    pixels = np.zeros((40, 90, 3), np.uint8)
    (tmp_path / "ours/overlays").mkdir()
    Image.fromarray(pixels).save(tmp_path / "ours/overlays" / f"{CASES[5]}.png")
    compare(tmp_path, *paths, overlays=2)
    page = Reader(tmp_path / "out/compare.html")
    shown = [row for row in page.cells if len(row) == 5 and row[0] in CASES]
    assert [row[0] for row in shown] == [CASES[5], CASES[7]]
    pictures = [to for _, to in page.addresses if to.startswith("data:image/webp")]
    assert len(pictures) == 3 + 2, "three of the masks, and two plots"


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    one = table(tmp_path / "one", planted(0))
    cases = {
        "nowhere: no such file or folder": [one, tmp_path / "nowhere"],
        "one system alone": [one],
        "give it once": [one, one],
        "no case in common": [one, table(tmp_path / "others", {"x": 0.5})],
        "no label in common": [one, table(tmp_path / "spleen", planted(0), label="spleen")],
        "holds no scores.csv": [one, tmp_path],
    }
    for message, systems in cases.items():
        with pytest.raises(ConfigError, match=message):
            compare(tmp_path, *systems)
    assert not (tmp_path / "out/compare.html").exists()


def test_the_command_takes_paths_in_front_of_keys(tmp_path: Path) -> None:
    for name in ("läufe (1)", "b"):
        table(tmp_path / name, planted(0))
    words = ["compare", "läufe (1)", "b/scores.csv", "names=[ours,theirs]", "margin=0.01"]
    done = command("segpipe.study", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "comparison/compare.html").is_file()
    assert "theirs is not inferior to ours" in done.stdout + done.stderr
    for wrong, message in (
        (["compare"], "systems is missing"),
        (["compare", "b", "c"], "c: no such file or folder"),
        (["compare", "b", "margin=2"], "margin"),
    ):
        done = command("segpipe.study", *wrong, folder=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_metric_that_was_chosen_is_compared_too(tmp_path: Path) -> None:
    paths = []
    for seed in range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = []
        for score in scores_of(planted(seed)):
            lines = {"dice": score.dice, "cldice": score.dice / 2}
            found.append(replace(score, values=lines))
        write_scores(found, folder / "scores.csv")
        paths.append(folder / "scores.csv")
    evidence = compare(tmp_path, *paths)
    assert list(evidence.metrics) == ["dice", "cldice"]
    line = rows(tmp_path / "out" / "compare.csv")[-1]
    assert float(line["cldice"]) == pytest.approx(float(line["dice"]) / 2)
    assert "hd95_mm" not in line
