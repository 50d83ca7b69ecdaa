"""Tables and boxes of scores: intervals beside means, and distances that are only a penalty."""

from dataclasses import replace
from pathlib import Path

import pytest

from segpipe.metrics import Score
from segpipe.reporting import score_tables
from segpipe.reporting.page import Cell, Value
from segpipe.reporting.plots import BoxPanel
from segpipe.reporting.score_tables import (
    PENALTIES,
    policy,
    score_boxes,
    scores_table,
    summary_table,
)
from segpipe.units import UNITS

DIAGONAL = 200.0


def score(case: int, label: str, dice: float) -> Score:
    """Return the score of a case; with a Dice of 0 the prediction is empty."""
    distance = 2.0 if dice else DIAGONAL
    values = {"dice": dice, "hd95_mm": distance, "nsd": dice}
    return Score(f"c{case}", label, values, 2.0 if dice else 0.0, 2.0)


FOUND = [score(case, "liver", 0.9) for case in range(4)]
SCORES = [*FOUND, *(score(case, "vessel", 0.8 if case else 0.0) for case in range(4))]
LOST = [*FOUND, *(score(case, "vessel", 0.0) for case in range(4))]


def shown(row: list[Cell] | tuple[Cell, ...]) -> list[str]:
    return [cell.text if isinstance(cell, Value) else str(cell) for cell in row]


def cells(scores: list[Score]) -> dict[str, dict[str, str]]:
    """Return the texts of a summary by label and heading."""
    table = summary_table(scores, UNITS["mm"], "means")
    heads = [column.name for column in table.columns]
    return {str(row[0]): dict(zip(heads, shown(list(row)), strict=True)) for row in table.rows}


def test_a_mean_stands_with_its_interval_and_sorts_by_itself() -> None:
    varied = [replace(one, values={"dice": 0.8 + n / 50}) for n, one in enumerate(FOUND)]
    (row, _) = summary_table(varied, UNITS["mm"], "means").rows
    (_, dice, *_) = row
    assert isinstance(dice, Value)
    assert dice.number == pytest.approx(0.83)
    assert dice.text.startswith("0.830\N{NO-BREAK SPACE}(0.8")
    assert "\N{EN DASH}" in dice.text


def test_the_mean_where_found_leaves_penalties_out() -> None:
    table = cells(SCORES)
    assert table["vessel"]["HD95 mm"].startswith("51.50")
    assert table["vessel"]["HD95 where found, mm"].startswith("2.00")
    assert table["mean"]["HD95 where found, mm"].startswith("2.00")
    assert "†" not in "".join(table["vessel"].values()), "the mean is not only a penalty"
    assert "HD95 where found, mm" not in cells(FOUND)["liver"], "nothing is left out"


def test_what_is_only_a_penalty_is_marked() -> None:
    table = cells(LOST)
    assert table["vessel"]["HD95 mm"].endswith("†")
    assert table["vessel"]["HD95 where found, mm"] == "None"
    assert not table["liver"]["HD95 mm"].endswith("†")
    rows = scores_table(SCORES, UNITS["mm"]).rows
    marked = [row[:2] for row in rows if "†" in "".join(shown(list(row)))]
    assert marked == [["c0", "vessel"]]
    assert policy(SCORES).endswith(PENALTIES)
    assert PENALTIES not in policy(FOUND)


def test_a_penalty_is_a_ring_in_the_plot_of_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[BoxPanel] = []
    monkeypatch.setattr(
        score_tables, "draw_boxes", lambda panels, file: drawn.extend(panels) or real(panels, file)
    )
    score_boxes(SCORES, UNITS["mm"], tmp_path / "boxes.png")
    hollow = {panel.title: panel.hollow for panel in drawn}
    assert hollow["Dice"] == {}
    assert hollow["HD95 mm"]["vessel"] == [True, False, False, False]
    assert not any(hollow["HD95 mm"]["liver"])


real = score_tables.draw_boxes
