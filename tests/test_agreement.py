"""Figures of agreement: limits by hand, and that they stand on the pages."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pages import Reader
from support.predictions import done, options
from support.run_folders import begun

from segpipe.metrics import Score, write_scores
from segpipe.reporting.agreement import draw_reliability, draw_volumes, limits_of
from segpipe.reporting.prediction_page import write_index
from segpipe.reporting.run_page import write_report
from segpipe.units import UNITS


def scores_of(pairs: list[tuple[float, float]], label: str = "organ") -> list[Score]:
    scores = []
    for number, (volume, truth) in enumerate(pairs):
        scores.append(Score(f"c{number}", label, {"dice": 0.8}, volume, truth))
    return scores


def test_limits_hold_95_percent_of_normal_differences() -> None:
    assert limits_of(np.array([1.0, 3.0])).bias == 2
    assert limits_of(np.array([1.0, 3.0])).high == pytest.approx(2 + 1.96 * np.sqrt(2))
    drawn = np.random.default_rng(0).normal(5, 2, 4000)
    limits = limits_of(drawn)
    assert np.mean((drawn > limits.low) & (drawn < limits.high)) == pytest.approx(0.95, abs=0.01)


def test_labels_of_few_cases_are_not_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "volumes.png"
    few = scores_of([(1.0, 2.0), (2.0, 2.0), (0.0, 0.0)])
    assert not draw_volumes(few, picture, UNITS["mm"])
    assert not picture.exists()
    enough = scores_of([(1.0, 2.0), (2.0, 2.0), (0.0, 3.0)], "other")
    assert draw_volumes([*few, *enough], picture, UNITS["px2"])
    with Image.open(picture) as drawn:
        assert drawn.width > 600


def test_they_stand_on_the_page_of_a_run(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["t"], "val": ["c0", "c1", "c2"]}))
    write_scores(scores_of([(1.0, 2.0), (2.0, 2.0), (3.0, 3.5)]), tmp_path / "validation.csv")
    bins = {"confidence": [0.6, 0.9], "right": [0.5, 0.7], "share": [0.5, 0.5], "ece": 0.15}
    calibration = {"temperature": 1.7, "before": bins, "after": bins, "voxels": 9, "cases": 3}
    (tmp_path / "postprocess.json").write_text(json.dumps({"calibration": calibration}))
    (tmp_path / "quality.json").write_text(json.dumps({"line": "predicted Dice is 0.030 off"}))
    write_report(tmp_path)
    page = Reader(tmp_path / "report.html")
    assert page.problems == []
    assert "Bland-Altman" in page.text
    assert "The temperature 1.7 is stored" in page.text
    assert "predicted Dice is 0.030 off" in page.text
    assert "NSD counts surfaces within 1 mm as equal" in page.text
    assert {"volumes.png", "reliability.png"} <= {file.name for file in tmp_path.iterdir()}
    assert json.loads((tmp_path / "report.json").read_text())["quality"]["line"]


def test_they_stand_on_the_page_of_predictions_with_a_truth(tmp_path: Path) -> None:
    scored = [done(name, 0.8, volume) for name, volume in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    write_index(tmp_path, scored, 3, options(tmp_path))
    assert "Bland-Altman" in Reader(tmp_path / "index.html").text
    write_index(tmp_path, [done("a"), done("b"), done("c")], 3, options(tmp_path))
    assert "Bland-Altman" not in Reader(tmp_path / "index.html").text


def test_a_reliability_curve_is_drawn(tmp_path: Path) -> None:
    bins = {"confidence": [0.6], "right": [0.5], "share": [1.0], "ece": 0.1}
    draw_reliability({"before": bins, "after": bins}, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as drawn:
        assert drawn.height > 300
