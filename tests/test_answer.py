"""The answer of a study in one sentence: which is better, or why that cannot be told."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.pages import Reader

from segpipe.config.compare import Compare
from segpipe.config.compose import defaults
from segpipe.config.validation import validate
from segpipe.metrics import Score, write_scores
from segpipe.study.answer import answer
from segpipe.study.comparison import compare_systems
from segpipe.study.evidence import Comparison, Evidence, analyse_systems
from segpipe.study.findings import findings
from segpipe.study.legend import labels, legend, letter
from segpipe.study.sweep import Source, Sweep, Variant
from segpipe.text import NOT_KNOWN

NAN = float("nan")


def scores(gain: float, cases: int = 24, seed: int = 0) -> list[Score]:
    """Return scores of cases whose Dice is about 0.7, and higher by a gain."""
    rng = np.random.default_rng(seed)
    made: list[Score] = []
    for number in range(cases):
        dice = 0.7 + gain + rng.normal(0, 0.005)
        values = {"dice": dice, "hd95_mm": 3.0, "nsd": dice}
        made.append(Score(f"c{number}", "liver", values, 2.0, 2.0))
    return made


def study(gains: Mapping[str, float], cases: int = 24, margin: float | None = None) -> Evidence:
    """Return the evidence of systems, each with the same cases; the first is the reference."""
    systems: list[Variant] = []
    for seed, (name, gain) in enumerate(gains.items()):
        source = Source(Path(name), scores(gain, cases, seed))
        systems.append(Variant(name, (), {(): source}))
    return analyse_systems(Sweep(Path(), systems, {}), systems[0], margin)


def without_tests(comparison: Comparison) -> Comparison:
    """Return a comparison as one run of each leaves it."""
    return replace(comparison, p=dict.fromkeys(comparison.p, NAN))


def test_the_better_one_is_named_whichever_it_is() -> None:
    better = answer(study({"ours": 0.0, "theirs": 0.05}))
    assert better.colour == "good"
    assert better.sentence.startswith("B (theirs) is better than A (ours) by 5.")
    assert better.sentence.endswith("Dice points; 95 % intervals over 24 cases.")
    worse = answer(study({"ours": 0.0, "theirs": -0.05}))
    assert worse.colour == "good"
    assert worse.sentence.startswith("A (ours) is better than B (theirs) by ")


def test_what_cannot_be_told_apart_is_no_answer() -> None:
    verdict = answer(study({"ours": 0.0, "theirs": 0.0}))
    assert verdict.colour == "weak"
    assert verdict.sentence.startswith("No difference can be shown: B (theirs) has ")
    assert "margin=0.01" in verdict.advice[0]
    decided = answer(study({"ours": 0.0, "theirs": 0.0}, margin=0.01))
    assert decided.colour == "good"
    assert "(by a margin of 1 Dice point B is not inferior)" in decided.sentence
    single = study({"ours": 0.0, "theirs": 0.05})
    single = replace(single, comparisons=list(map(without_tests, single.comparisons)))
    verdict = answer(replace(single, noun="variant"))
    assert verdict.colour == "weak"
    assert verdict.sentence.startswith("One run of each is no answer: B (theirs) has +5.")
    assert "seed=0,1,2" in verdict.advice[0]


def test_few_cases_and_a_reference_that_found_nothing_come_first() -> None:
    few = answer(study({"ours": 0.0, "theirs": 0.2}, cases=1), ["look at it"])
    assert few.colour == "weak"
    assert few.sentence.startswith("Not tested: B (theirs) has +20.")
    assert few.sentence.endswith(
        " Dice points compared with A (ours); 1 case is too few for a test (at least 6)."
    )
    assert few.advice[-1] == "Look at it."
    nothing = answer(study({"ours": -0.65, "weak": -0.64, "theirs": 0.0}))
    assert nothing.colour == "bad"
    assert "the reference, A (ours), has found nothing (mean Dice 0.049)" in nothing.sentence
    assert nothing.advice == ["Compare with C, whose mean Dice is 0.700: reference=theirs"]
    alone = answer(study({"ours": -0.65, "weak": -0.65}))
    assert alone.advice == ["Train longer (trainer.max_time) before comparing."]


def test_of_several_the_shown_differences_come_first_and_the_rest_is_counted() -> None:
    gains = {"ours": 0.0, "same": 0.0, "best": 0.06, "worst": -0.05, "good": 0.04}
    sentence = answer(study(gains)).sentence
    clauses = sentence.split("; ")
    assert clauses[0].startswith("C (best) is better than A (ours) by ")
    assert clauses[1].startswith("E (good) is better than A by ")
    assert clauses[2].startswith("A is better than D (worst) by ")
    assert clauses[3] == "1 more in the table"


def test_the_reference_is_a_and_the_legend_has_what_differs() -> None:
    words = [
        ("model.long_skips=concat", "model.match=params", "optim.lr=1"),
        ("model.long_skips=none", "model.match=params", "optim.lr=2"),
    ]
    variants: list[Variant] = []
    for own in words:
        variants.append(Variant(", ".join(own), own, {(): Source(Path(own[0]), scores(0.0))}))
    evidence = analyse_systems(Sweep(Path(), variants, {}), variants[1], None)
    table = legend(evidence.sweep, "variant")
    assert [column.name for column in table.columns] == ["variant", "model.long_skips", "optim.lr"]
    assert table.rows == [["A, the reference", "none", "2"], ["B", "concat", "1"]]
    assert list(labels(evidence.sweep).values()) == ["A: none, 2", "B: concat, 1"]
    assert [letter(place) for place in (0, 25, 26, 52)] == ["A", "Z", "AA", "BA"]


def test_many_settings_are_named_by_letters_in_a_sentence() -> None:
    evidence = study({"one": 0.0, "other": 0.05})
    (comparison,) = evidence.comparisons
    variant = replace(comparison.variant, overrides=("a=1", "b=2", "c=3"))
    changed = replace(evidence, comparisons=[replace(comparison, variant=variant)])
    (sentence,) = findings(changed)
    assert sentence.startswith("Taking B in place of A changes Dice by +5.")


def test_page_json_and_terminal_say_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, gain in (("ours", 0.0), ("theirs", 0.05)):
        (tmp_path / name).mkdir()
        write_scores(scores(gain), tmp_path / name / "scores.csv")
    systems = [str(tmp_path / name / "scores.csv") for name in ("ours", "theirs")]
    values = {"systems": systems, "output": str(tmp_path / "out")}
    with caplog.at_level(logging.INFO, logger="segpipe"):
        evidence = compare_systems(validate(Compare, defaults("compare") | values))
    stored = json.loads((tmp_path / "out/compare.json").read_text())
    said = stored["verdict"]["sentence"]
    assert said == answer(evidence).sentence
    assert stored["systems"] == {"A": "ours", "B": "theirs"}
    page = Reader(tmp_path / "out/compare.html")
    assert page.problems == []
    assert page.text.index(said) < page.text.index("Systems")
    assert said in (tmp_path / "out/compare.md").read_text()
    messages = [record.getMessage() for record in caplog.records]
    assert messages.index(said) == len(messages) - 1 - len(stored["verdict"]["advice"])
    of_scores = [row for row in page.cells if row[0] in ("A: ours", "B: theirs")]
    assert not any(NOT_KNOWN in row for row in of_scores), "no column of dashes"


def test_a_metric_that_one_system_lacks_is_a_dash_and_no_nan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systems: list[str] = []
    for name, more in (("ours", {}), ("theirs", {"stray_volume": 12.5})):
        (tmp_path / name).mkdir()
        measured = [replace(score, values={**score.values, **more}) for score in scores(0.0)]
        write_scores(measured, tmp_path / name / "scores.csv")
        systems.append(str(tmp_path / name / "scores.csv"))
    values = {"systems": systems, "output": str(tmp_path / "out")}
    compare_systems(validate(Compare, defaults("compare") | values))
    lines = capsys.readouterr().out.splitlines()
    ours = next(line for line in lines if "A: ours" in line)
    theirs = next(line for line in lines if "B: theirs" in line)
    assert ours.split("│")[-2].strip() == NOT_KNOWN
    assert theirs.split("│")[-2].strip() == "12.5"
    page = Reader(tmp_path / "out/compare.html")
    assert not any("nan" in row for row in page.cells)
