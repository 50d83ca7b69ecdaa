"""The comparisons of a study in plain sentences."""

import numpy as np

from segpipe.metrics import Metric, Score, all_metrics
from segpipe.study.evidence import MAIN, Comparison, Evidence
from segpipe.study.statistics import LEAST_CASES, Difference, inferiority
from segpipe.study.sweep import Variant
from segpipe.text import count
from segpipe.verdict import judge

SKIP_KINDS = {"model.long_skips": "long skips", "model.short_skips": "short skips"}


def findings(evidence: Evidence) -> list[str]:
    """Return a sentence to quote for each comparison with the reference.

    There is none where the cases are too few for a test, or the reference has learnt nothing.
    """
    if _reference_caution(evidence):
        return []
    sentences: list[str] = []
    for comparison in evidence.comparisons:
        if comparison.differences[MAIN].cases >= LEAST_CASES:
            sentences.append(sentence(comparison, evidence.reference, evidence.margin))
    return sentences


def cautions(evidence: Evidence) -> list[str]:
    """Return what the comparisons cannot tell, each caution once."""
    given = [_reference_caution(evidence), *(one.caution for one in evidence.comparisons)]
    return list(dict.fromkeys(filter(None, given)))


def _reference_caution(evidence: Evidence) -> str:
    """Return what is wrong with a reference that has learnt nothing; else an empty string."""
    scores: list[Score] = []
    for run in evidence.reference.runs.values():
        scores += run.scores
    verdict = judge(scores, "training")
    if verdict is None or verdict.level != "nothing":
        return ""
    return (
        f"the reference, {evidence.reference.name}, has found nothing (mean Dice "
        f"{verdict.mean_dice:.3f}), so a difference to it says nothing of either"
    )


def sentence(comparison: Comparison, reference: Variant, margin: float | None = None) -> str:
    """Return a comparison in plain words: differences with intervals, p-value, cases and runs.

    Differences are those of the variant less the reference, as in every table and plot.

    Args:
        comparison: to put into words.
        reference: the variant that it is with.
        margin: loss of Dice that would not matter; None: nothing is said of it.
    """
    main = comparison.differences[MAIN]
    clauses = [_difference(all_metrics()[MAIN], main)]
    p = comparison.p[MAIN]
    if np.isfinite(p):
        clauses.append(f"p < {1e-4:.4f}" if p < 1e-4 else f"p = {p:.2g}")
    clauses.append(count(main.cases, "case"))
    if comparison.variant.overrides:
        clauses.append(f"{count(main.runs, 'run')} of each")
    text = f"{_change(comparison.variant, reference)} changes {', '.join(clauses)}"
    for name in comparison.p:
        if name != MAIN and np.isfinite(comparison.differences[name].interval.mean):
            other = _difference(all_metrics()[name], comparison.differences[name])
            text += f"; {reference.first_run.units.in_text(other)}"
    if _boundary_suffers_most(comparison):
        text += ": the boundary suffers most"
    if margin is not None:
        text += f". {_inferiority(comparison, reference, margin)}"
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
        f"interval begins at {100 * interval.low:.1f}"
    )


def in_points(margin: float) -> str:
    """Return a margin of Dice in points: `1 Dice point`."""
    points = 100 * margin
    return f"{points:g} Dice point{'' if points == 1 else 's'}"


def _difference(metric: Metric, difference: Difference) -> str:
    """Return `Dice by -2.4 [-3.1, -1.7] points`, or with the unit of the metric."""
    scale = metric.difference_scale
    ends = [scale * difference.interval.low, scale * difference.interval.high]
    mean = f"{scale * difference.interval.mean:+.1f}{_range(ends)}"
    return f"{metric.title} by {mean} {metric.unit or 'points'}"


def _range(ends: list[float]) -> str:
    return f" [{ends[0]:.1f}, {ends[1]:.1f}]" if np.isfinite(ends[0]) else ""


def _boundary_suffers_most(comparison: Comparison) -> bool:
    """Return whether the surface Dice loses more than Dice does, and surely something."""
    if "nsd" not in comparison.differences:  # which was not chosen
        return False
    dice = comparison.differences["dice"].interval
    nsd = comparison.differences["nsd"].interval
    return nsd.mean < dice.mean < 0 and nsd.high < 0


def _change(variant: Variant, reference: Variant) -> str:
    """Return in words what distinguishes a variant from the reference."""
    if not variant.overrides:
        return f"taking {variant.name} in place of {reference.name}"
    overrides = [word for word in variant.overrides if word not in reference.overrides]
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
