"""The end of a run: how it is foretold, and what ends it before the budget does."""

import csv
from datetime import timedelta
from pathlib import Path

import pytest
from support.commands import TINY, command

from segpipe.training.callbacks.forecast import steps_in_all
from segpipe.training.schedule import Budget


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a run printed that could learn nothing, and its folder."""
    folder = tmp_path_factory.mktemp("work")
    words = [*TINY, "optim.lr=1e-30", "trainer.max_steps=200", "trainer.steps_per_epoch=10"]
    words += ["trainer.validations=20", "trainer.patience=2", "trainer.postprocess=false"]
    done = command("train.py", *words, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr, folder / "runs" / "latest"


def test_a_run_ends_when_its_validations_get_no_better(impatient: tuple[str, Path]) -> None:
    said, run = impatient
    assert "ends at 15 % of its budget: no better mean Dice in 2 validations (trainer.pat" in said
    with (run / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [10, 20, 30]
    assert (run / "report.html").exists()


def test_a_run_says_soon_what_its_budget_holds(impatient: tuple[str, Path]) -> None:
    said, _ = impatient
    assert "about 200 steps in all, with about 40 patches of each training case" in said


@pytest.mark.parametrize(
    ("steps", "minutes", "expected"),
    [(None, 10, 280), (100, None, 100), (100, 10, 100), (999, 10, 280)],
)
def test_a_forecast_counts_what_is_left(
    steps: int | None, minutes: int | None, expected: int
) -> None:
    budget = Budget(steps, None if minutes is None else timedelta(minutes=minutes))
    assert steps_in_all(budget, left=0.9, done=10, seconds=2.0) == expected
