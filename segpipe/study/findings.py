"""The comparisons of a study in plain sentences."""

import numpy as np

from segpipe.metrics import Metric, metrics_of
from segpipe.study.evidence import MAIN, Comparison, Evidence
from segpipe.study.statistics import Difference
from segpipe.study.sweep import Variant
from segpipe.text import count

SKIP_KINDS = {"model.long_skips": "long skips", "model.short_skips": "short skips"}


def findings(evidence: Evidence) -> list[str]:
    """Return a sentence for each comparison with the reference."""
    return [sentence(comparison, evidence.reference) for comparison in evidence.comparisons]


def cautions(evidence: Evidence) -> list[str]:
    """Return what so few cases or runs cannot tell, each caution once."""
    return list(dict.fromkeys(one.caution for one in evidence.comparisons if one.caution))


def sentence(comparison: Comparison, reference: Variant) -> str:
    """Return a comparison in plain words: differences with intervals, p-value, cases and runs."""
    difference = comparison.differences[MAIN]
    clauses = [_main_clause(comparison, reference, difference)]
    p = comparison.p[MAIN]
    if np.isfinite(p):
        clauses.append(f"p < {1e-4:.4f}" if p < 1e-4 else f"p = {p:.2g}")
    clauses.append(count(difference.cases, "case"))
    clauses.append(f"{count(difference.runs, 'run')} of each")
    text = ", ".join(clauses)
    for name, metric in metrics_of("tests").items():
        if name != MAIN and np.isfinite(comparison.differences[name].interval.mean):
            other = _other_metric(metric, comparison.differences[name])
            text += f"; {reference.first_run.units.in_text(other)}"
    if _boundary_suffers_most(comparison):
        text += ": the boundary suffers most"
    return text[0].upper() + text[1:] + "."


def _main_clause(comparison: Comparison, reference: Variant, difference: Difference) -> str:
    """Return `taking away all long skips costs 1.9 [1.2, 2.6] Dice points`."""
    mean = 100 * difference.interval.mean
    ends = [100 * difference.interval.low, 100 * difference.interval.high]
    verb = "gains"
    if mean < 0:
        verb = "costs"
        mean = -mean
        ends = [-ends[1], -ends[0]]
    points = f"{mean:.1f}{_range(ends)}"
    return f"{_change(comparison.variant, reference)} {verb} {points} Dice points"


def _other_metric(metric: Metric, difference: Difference) -> str:
    """Return `NSD 1 mm -2.4 [-3.1, -1.7]`, in points, or in the unit of the metric."""
    scale = metric.difference_scale
    ends = [scale * difference.interval.low, scale * difference.interval.high]
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{metric.title} {scale * difference.interval.mean:+.1f}{_range(ends)}{unit}"


def _range(ends: list[float]) -> str:
    return f" [{ends[0]:.1f}, {ends[1]:.1f}]" if np.isfinite(ends[0]) else ""


def _boundary_suffers_most(comparison: Comparison) -> bool:
    """Return whether the surface Dice loses more than Dice does, and surely something."""
    dice = comparison.differences["dice"].interval
    nsd = comparison.differences["nsd"].interval
    return nsd.mean < dice.mean < 0 and nsd.high < 0


def _change(variant: Variant, reference: Variant) -> str:
    """Return in words what distinguishes a variant from the reference."""
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
