"""A metric of one's own stands wherever metrics are listed, and files without it are still read."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.pages import Reader
from support.run_folders import begun

from segpipe.errors import ConfigError
from segpipe.metrics import MaskPair, Score, metric, metrics_of, score_case, write_scores
from segpipe.registry import METRICS
from segpipe.reporting.rendering import show_scores
from segpipe.reporting.run_page import write_report
from segpipe.study import evidence
from segpipe.study.cost import Cost
from segpipe.study.evidence import ALL, analyse
from segpipe.study.sweep import Sweep, SweepRun, Variant
from segpipe.study.tables import csv_table
from segpipe.units import UNITS


@metric(title="Recall", digits=3, tested=True)
def recall(pair: MaskPair) -> float:
    return pair.common_voxels / pair.true_voxels


def forget(name: str) -> None:
    METRICS.added.pop(name, None)
    METRICS.values.pop(name, None)


@pytest.fixture
def registered() -> Iterator[None]:
    METRICS.register("recall", help="share of the truth that the prediction covers")(recall)
    yield
    forget("recall")


def scores_of(cases: int, seed: int) -> list[Score]:
    """Scores of random masks of one target."""
    rng = np.random.default_rng(seed)
    scores: list[Score] = []
    for number in range(cases):
        truth = np.zeros((8, 8, 8), np.uint8)
        truth[2:6, 2:6, 2:6] = 1
        prediction = truth * (rng.random(truth.shape) < 0.7).astype(np.uint8)
        scores += score_case(f"case {number}", prediction, truth, (1.0, 1.0, 1.0), {"organ": [1]})
    return scores


def run_folder(folder: Path, cases: int, seed: int) -> Path:
    begun(folder)
    scores = scores_of(cases, seed)
    names = sorted({score.case for score in scores})
    (folder / "split.json").write_text(json.dumps({"train": ["t"], "val": names}))
    write_scores(scores, folder / "validation.csv")
    return folder


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.usefixtures("registered")
def test_it_stands_in_the_tables_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", 3, 0)
    rows = rows_of(folder / "validation.csv")
    assert list(rows[0]) == [
        *("case", "label", "dice", "iou", "hd95_mm", "assd_mm", "nsd", "recall"),
        *("volume_ml", "truth_ml"),
    ]
    # the prediction lies inside the truth, so recall is the ratio of their volumes
    for row in rows:
        assert float(row["recall"]) == pytest.approx(
            float(row["volume_ml"]) / float(row["truth_ml"])
        )
    write_report(folder)
    page = Reader(folder / "report.html")
    assert sum("Recall" in row for row in page.cells) == 2, "the summary, and every score"
    assert "recall" in json.loads((folder / "report.json").read_text())["summary"][0]
    show_scores(scores_of(3, 0), "three cases", UNITS["mm"])
    assert "Recall" in capsys.readouterr().out


@pytest.mark.usefixtures("registered")
def test_a_miss_has_its_worst_value_and_what_is_nowhere_none() -> None:
    empty = np.zeros((4, 4, 4), np.uint8)
    full = np.ones((4, 4, 4), np.uint8)
    (miss,) = score_case("a", empty, full, (1.0, 1.0, 1.0), {"organ": [1]})
    (nowhere,) = score_case("b", empty, empty, (1.0, 1.0, 1.0), {"organ": [1]})
    assert miss.values["recall"] == 0
    assert np.isnan(nowhere.values["recall"])


def test_a_run_of_before_is_compared_with_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def variant(name: str, folders: list[Path]) -> Variant:
        runs: dict[tuple[str, ...], SweepRun] = {}
        for seed, folder in enumerate(folders):
            runs[(f"seed={seed}",)] = SweepRun(folder, (name,), (f"seed={seed}",))
        return Variant(name, (name,), runs)

    monkeypatch.setattr(evidence, "cost_of", lambda variant: Cost(variant.name, 1, 1, 1.0, 1.0))
    old = [run_folder(tmp_path / f"old {seed}", 8, seed) for seed in range(2)]
    METRICS.register("recall", help="share of the truth that the prediction covers")(recall)
    try:
        new = [run_folder(tmp_path / f"new {seed}", 8, 5 + seed) for seed in range(2)]
        newer = [run_folder(tmp_path / f"newer {seed}", 8, 9 + seed) for seed in range(2)]
        variants = [variant("new", new), variant("old", old), variant("newer", newer)]
        header, lines = csv_table(analyse(Sweep(tmp_path, variants, {}), variants[0]))
    finally:
        forget("recall")
    assert {"recall", "recall_sd", "recall_difference", "recall_p_holm"} <= set(header)
    rows = {line[0]: dict(zip(header, line, strict=True)) for line in lines if line[1] == ALL}
    assert 0.6 < rows["new"]["recall"] < 0.8
    assert np.isnan([rows["old"]["recall"], rows["old"]["recall_difference"]]).all()
    assert np.isfinite([rows["old"]["dice_difference"], rows["old"]["dice_p_holm"]]).all()
    assert np.isfinite([rows["newer"]["recall_difference"], rows["newer"]["recall_p_holm"]]).all()


def test_columns_of_metrics_that_are_not_registered_are_ignored() -> None:
    stored = {"case": "a", "label": "organ", "dice": "0.5", "nsd": "", "recall": "0.1"}
    score = Score.from_values(stored | {"volume_ml": "1", "truth_ml": "2"})
    assert score.dice == 0.5
    assert np.isnan(score.nsd)
    assert np.isnan(score.hd95_mm)
    assert "recall" not in score.to_values()
    with pytest.raises(AttributeError, match="no attribute or metric recall"):
        _ = score.recall


def test_a_bare_function_is_refused_with_what_it_lacks() -> None:
    METRICS.register("bare", help="without a title")(lambda pair: 0.0)
    try:
        with pytest.raises(ConfigError, match="metric bare: give it a title"):
            metrics_of("scores")
    finally:
        forget("bare")
