"""The answer of a study: which variant is better, in one sentence, and what to do next.

It is made here alone: page, Markdown, JSON and terminal only show it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from segpipe.config.quoting import prediction_with, typed
from segpipe.intervals import Interval
from segpipe.metrics import all_metrics
from segpipe.study.evidence import MAIN, Comparison, Evidence
from segpipe.study.findings import in_points, verdict_on
from segpipe.study.legend import letters, shorts
from segpipe.study.statistics import LEAST_CASES, inferiority, too_few
from segpipe.study.sweep import Source, Variant
from segpipe.terminal import relative_to_cwd
from segpipe.text import count
from segpipe.verdict import Judgement, Verdict

SURE = 0.05  # the level of the tests, as of the intervals
NAMED = 3  # comparisons that a sentence names
Outcome = Literal["better", "worse", "open", "single", "few"]
STARTS: dict[Outcome, str] = {
    "open": "no difference can be shown: ",
    "single": "one run of each is no answer: ",
    "few": "not tested: ",
}
RANKS: tuple[Outcome, ...] = get_args(Outcome)  # as a sentence names them


def answer(evidence: Evidence, cautions: Sequence[str] = ()) -> Judgement:
    """Return which variant is better, or why that cannot be told.

    Args:
        evidence: the evidence of the study.
        cautions: what else the reader must make sure of, each without a full stop.
    """
    known = verdict_on(evidence.reference)
    if known is not None and known.level == "nothing":
        return _no_reference(evidence, known, cautions)
    outcomes: list[Outcome] = [_outcome(comparison) for comparison in evidence.comparisons]
    told = [outcome for outcome in outcomes if outcome != "few"]
    if not told:
        return _too_few(evidence, cautions)
    shown = f"{_differences(evidence)}; {_size(evidence)}."
    is_answered = "better" in told or "worse" in told or _margin_is_decided(evidence)
    advice = [*_next_steps(evidence, outcomes), *map(_as_sentence, _cautions(evidence, cautions))]
    return Judgement("works" if is_answered else "weak", shown[0].upper() + shown[1:], advice)


def _no_reference(evidence: Evidence, known: Verdict, cautions: Sequence[str]) -> Judgement:
    """Return that the reference has learnt nothing, and what could take its place."""
    name = _introduced(evidence, evidence.reference)
    learnt: list[tuple[float, str]] = []
    for comparison in evidence.comparisons:
        other = verdict_on(comparison.variant)
        if other is not None and other.level != "nothing":
            learnt.append((other.mean_dice, comparison.variant.name))
    sentence = (
        f"No answer: the reference, {name}, has found nothing (mean Dice {known.mean_dice:.3f}), "
        "so a difference to it says nothing."
    )
    advice = "Train longer (trainer.max_time) before comparing."
    if learnt:
        dice, best = max(learnt)
        own = letters(evidence.sweep)[best]
        advice = f"Compare with {own}, whose mean Dice is {dice:.3f}: {typed('reference', best)}"
    more = map(_as_sentence, _cautions(evidence, cautions))
    return Judgement("nothing", sentence, [advice, *more])


def _too_few(evidence: Evidence, cautions: Sequence[str]) -> Judgement:
    """Return the differences that no comparison has enough cases to test, and where more are."""
    if not evidence.comparisons:
        sentence = f"No answer: no {evidence.noun} can be compared with the reference."
        return Judgement("weak", sentence, list(map(_as_sentence, cautions)))
    most = max(comparison.differences[MAIN].cases for comparison in evidence.comparisons)
    more = "Score more cases: data.fold=0,1,2,3,4 in the sweep lets every case validate once."
    if evidence.noun == "system":
        more = (
            "Score more cases: mode=crossval lets every case validate once; predict.py "
            "truth=LABELS scores scans that trained none of them."
        )
    sentence = f"{_differences(evidence)}; {too_few(most)}."
    return Judgement(
        "weak", sentence[0].upper() + sentence[1:], [more, *map(_as_sentence, cautions)]
    )


def _outcome(comparison: Comparison) -> Outcome:
    """Return what a comparison shows: a variant is better where test and interval agree."""
    main = comparison.differences[MAIN]
    if main.cases < LEAST_CASES:
        return "few"
    p = comparison.p[MAIN]
    if np.isnan(p):
        return "single"
    if p < SURE and main.interval.low > 0:
        return "better"
    return "worse" if p < SURE and main.interval.high < 0 else "open"


def _differences(evidence: Evidence) -> str:
    """Return the comparisons in words: differences that are shown first, the best of them first."""
    ranked = sorted(evidence.comparisons, key=_rank)
    clauses: list[str] = []
    # the reference is introduced once, and so is what holds of all clauses that follow
    reference = _introduced(evidence, evidence.reference)
    before = ""
    for comparison in ranked[:NAMED]:
        outcome = _outcome(comparison)
        start = STARTS.get(outcome, "") if outcome != before else ""
        clauses.append(start + _clause(evidence, comparison, reference))
        reference = letters(evidence.sweep)[evidence.reference.name]
        before = outcome
    if ranked[NAMED:]:
        clauses.append(f"{len(ranked) - NAMED} more in the table")
    return "; ".join(clauses)


def _rank(comparison: Comparison) -> tuple[int, float]:
    order = RANKS.index(_outcome(comparison))
    return order, -comparison.differences[MAIN].interval.mean


def _introduced(evidence: Evidence, variant: Variant) -> str:
    """Return a variant by letter and short name, as in `B (none, residual)`."""
    name = variant.name
    return f"{letters(evidence.sweep)[name]} ({shorts(evidence.sweep)[name]})"


def _clause(evidence: Evidence, comparison: Comparison, reference: str) -> str:
    """Return one comparison in words, with the difference in Dice points and its interval."""
    other = _introduced(evidence, comparison.variant)
    interval = comparison.differences[MAIN].interval.scaled(all_metrics()[MAIN].difference_scale)
    match _outcome(comparison):
        case "better":
            text = f"{other} is better than {reference} by {_points(interval)}"
        case "worse":
            turned = Interval(-interval.mean, -interval.high, -interval.low)
            text = f"{reference} is better than {other} by {_points(turned)}"
        case "few" if np.isnan(interval.mean):
            return f"{other} has no case in common with {reference}"
        case "few" | "single" | "open" as outcome:
            text = f"{other} has {_points(interval, plus=True)} compared with {reference}"
            if outcome == "few":
                return text
    if evidence.margin is None:
        return text
    judged = inferiority(comparison.differences[MAIN].interval, evidence.margin)
    said = "may be inferior" if judged == "open" else f"is {judged}"
    own = letters(evidence.sweep)[comparison.variant.name]
    return f"{text} (by a margin of {in_points(evidence.margin)} {own} {said})"


def _points(interval: Interval, plus: bool = False) -> str:
    """Return a difference in Dice points with its interval."""
    digits = all_metrics()[MAIN].difference_digits
    return f"{interval.shown(digits, plus)} Dice points"


def _margin_is_decided(evidence: Evidence) -> bool:
    """Return whether a margin was asked for, and is decided for a system."""
    if evidence.margin is None:
        return False
    for comparison in evidence.comparisons:
        main = comparison.differences[MAIN]
        if main.cases >= LEAST_CASES and inferiority(main.interval, evidence.margin) != "open":
            return True
    return False


def _size(evidence: Evidence) -> str:
    """Return on how much the answer rests: cases and runs."""
    mains = [comparison.differences[MAIN] for comparison in evidence.comparisons]
    cases = count(max(main.cases for main in mains), "case")
    if evidence.noun == "system":
        return f"95 % intervals over {cases}"
    return f"95 % intervals over {cases}, {count(max(main.runs for main in mains), 'run')} of each"


def _next_steps(evidence: Evidence, outcomes: Sequence[Outcome]) -> list[str]:
    """Return what to do next: use what is better, or look at more cases and seeds."""
    if "better" in outcomes or "worse" in outcomes:
        return _use(evidence, _best(evidence, outcomes))
    if "single" in outcomes:
        return ["Repeat each with several seeds: seed=0,1,2."]
    if evidence.noun == "system":
        return ["More cases narrow the interval; margin=0.01 asks whether one is worse by more."]
    return [
        "More seeds (seed=0,1,2) and cases (data.fold=0,1,2,3,4) narrow the interval; where a "
        "difference of this size does not matter, take the one that costs less."
    ]


def _best(evidence: Evidence, outcomes: Sequence[Outcome]) -> Variant:
    """Return the variant that is the most above the reference; the reference where none is."""
    best = evidence.reference
    gain = 0.0
    for comparison, outcome in zip(evidence.comparisons, outcomes, strict=True):
        mean = comparison.differences[MAIN].interval.mean
        if outcome == "better" and mean > gain:
            best = comparison.variant
            gain = mean
    return best


def _use(evidence: Evidence, best: Variant) -> list[str]:
    """Return how to predict with a variant; nothing where it has no network here."""
    run = best.first_run
    if isinstance(run, Source):
        run = run.run
    if run is None:
        return []
    command = prediction_with(relative_to_cwd(run.folder))
    return [f"Predict with {letters(evidence.sweep)[best.name]}: {command}"]


def _cautions(evidence: Evidence, more: Sequence[str]) -> list[str]:
    """Return what the comparisons cannot tell, each caution once."""
    given = [*(comparison.caution for comparison in evidence.comparisons), *more]
    return list(dict.fromkeys(filter(None, given)))


def _as_sentence(caution: str) -> str:
    return f"{caution[0].upper()}{caution[1:]}."
