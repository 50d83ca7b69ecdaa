"""The comparisons of a study in plain sentences."""

import numpy as np

from segpipe.metrics import Metric, Score, all_metrics
from segpipe.study.evidence import MAIN, Comparison, Evidence
from segpipe.study.legend import letters
from segpipe.study.statistics import LEAST_CASES, Difference, inferiority
from segpipe.study.sweep import Variant
from segpipe.text import count, decimal
from segpipe.verdict import Verdict, judge

SKIP_KINDS = {"model.long_skips": "long skips", "model.short_skips": "short skips"}
MOST_CHANGES = 2  # settings that a sentence names; of more, it names the letters


def findings(evidence: Evidence) -> list[str]:
    """Return a sentence to quote for each comparison with the reference.

    There is none where the cases are too few for a test, or the reference has learnt nothing.
    """
    if has_learnt_nothing(evidence.reference):
        return []
    sentences: list[str] = []
    for comparison in evidence.comparisons:
        if comparison.differences[MAIN].cases >= LEAST_CASES:
            sentences.append(sentence(comparison, evidence))
    return sentences


def verdict_on(variant: Variant) -> Verdict | None:
    """Return the verdict on the scores of all runs of a variant."""
    scores: list[Score] = []
    for run in variant.runs.values():
        scores += run.scores
    return judge(scores, "training")


def has_learnt_nothing(variant: Variant) -> bool:
    """Return whether a variant finds nothing, so that a difference to it says nothing of either."""
    verdict = verdict_on(variant)
    return verdict is not None and verdict.level == "nothing"


def sentence(comparison: Comparison, evidence: Evidence) -> str:
    """Return a comparison in plain words: differences with intervals, p-value, cases and runs.

    Differences are those of the variant less the reference, as in every table and plot.
    """
    reference = evidence.reference
    main = comparison.differences[MAIN]
    clauses = [_difference(all_metrics()[MAIN], main)]
    p = comparison.p[MAIN]
    if np.isfinite(p):
        clauses.append(f"p < {1e-4:.4f}" if p < 1e-4 else f"p = {p:.2g}")
    clauses.append(count(main.cases, "case"))
    if comparison.variant.overrides:
        clauses.append(f"{count(main.runs, 'run')} of each")
    text = f"{_change(comparison.variant, evidence)} changes {', '.join(clauses)}"
    for name in comparison.p:
        if name != MAIN and np.isfinite(comparison.differences[name].interval.mean):
            other = _difference(all_metrics()[name], comparison.differences[name])
            text += f"; {reference.first_run.units.in_text(other)}"
    if _boundary_suffers_most(comparison):
        text += ": the boundary suffers most"
    if evidence.margin is not None:
        text += f". {_inferiority(comparison, reference, evidence.margin)}"
    return text[0].upper() + text[1:] + "."


def _inferiority(comparison: Comparison, reference: Variant, margin: float) -> str:
    """Return whether a variant is not inferior by a margin, in words."""
    interval = comparison.differences[MAIN].interval
    points = in_points(margin)
    name = comparison.variant.name
    match inferiority(interval, margin):
        case "not inferior":
            return f"By a margin of {points}, {name} is not inferior to {reference.name}"
        case "inferior":
            return f"By a margin of {points}, {name} is inferior to {reference.name}"
    return (
        f"Whether {name} is inferior to {reference.name} by more than {points} stays open: the "
        f"interval begins at {decimal(100 * interval.low, 1)}"
    )


def in_points(margin: float) -> str:
    """Return a margin of Dice in points: `1 Dice point`."""
    points = 100 * margin
    return f"{points:g} Dice point{'' if points == 1 else 's'}"


def _difference(metric: Metric, difference: Difference) -> str:
    """Return `Dice by +2.4 (1.7 to 3.1) points`, or with the unit of the metric."""
    interval = difference.interval.scaled(metric.difference_scale)
    mean = interval.shown(metric.difference_digits, plus=True)
    return f"{metric.title} by {mean} {metric.unit or 'points'}"


def _boundary_suffers_most(comparison: Comparison) -> bool:
    """Return whether the surface Dice loses more than Dice does, and surely something."""
    if "nsd" not in comparison.differences:  # which was not chosen
        return False
    dice = comparison.differences["dice"].interval
    nsd = comparison.differences["nsd"].interval
    return nsd.mean < dice.mean < 0 and nsd.high < 0


def _change(variant: Variant, evidence: Evidence) -> str:
    """Return in words what distinguishes a variant from the reference."""
    reference = evidence.reference
    if not variant.overrides:
        return f"taking {variant.name} in place of {reference.name}"
    overrides = [word for word in variant.overrides if word not in reference.overrides]
    if not 0 < len(overrides) <= MOST_CHANGES:
        names = letters(evidence.sweep)
        return f"taking {names[variant.name]} in place of {names[reference.name]}"
    return " and ".join(map(_change_by, overrides))


def _change_by(override: str) -> str:
    """Return one override in words: `taking away all long skips`."""
    key, _, value = override.partition("=")
    if key not in SKIP_KINDS:
        return f"{key.removeprefix('model.')}={value}"
    skips = SKIP_KINDS[key]
    entries = value.strip("[]").split(",")
    if set(entries) == {"none"}:
        return f"taking away all {skips}"
    if len(entries) > 1 and entries.count("none") == 1:
        level = entries.index("none")
        name = {0: "the finest", len(entries) - 1: "the coarsest"}.get(level, f"level {level}'s")
        return f"taking away {name} {skips.rstrip('s')}"
    return f"switching {skips} to {value}"
