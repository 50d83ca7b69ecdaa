"""Which metrics are measured, with which tolerances, and which of them a table shows."""

from collections.abc import Iterable, Mapping

from segpipe.config.scoring import USUAL_METRICS, USUAL_TOLERANCE_MM, Scoring
from segpipe.errors import ConfigError
from segpipe.mask_pairs import Targets
from segpipe.metric_record import Metric, MetricValues, TableName
from segpipe.registry import METRICS
from segpipe.text import nearest


def all_metrics() -> dict[str, Metric]:
    """Return all metrics by name, in the order of their registration.

    Raises:
        ConfigError: if an extension has registered something that `metric` has not made.
    """
    found: dict[str, Metric] = {}
    for name in METRICS:
        entry = METRICS[name]
        if not isinstance(entry, Metric):
            raise ConfigError(
                f"metric {name}: give it a title: @metric(title=...) below @METRICS.register(...)"
            )
        found[name] = entry
    return found


def metrics_of(table: TableName, rows: Iterable[MetricValues] | None = None) -> dict[str, Metric]:
    """Return the metrics that a table shows, by name, in the order of their registration.

    Args:
        table: the table that shows them.
        rows: what was measured, such as the scores of all cases; metrics that none of them has are
            left out. None: the usual metrics.

    Raises:
        ConfigError: if an extension has registered something that `metric` has not made.
    """
    measured: set[str] | None = None
    if rows is not None:
        measured = set()
        for row in rows:
            measured |= row.values.keys()
    shown: dict[str, Metric] = {}
    for name, entry in all_metrics().items():
        is_there = entry.usual if measured is None else name in measured
        if is_there and entry.stands_in(table):
            shown[name] = entry
    return shown


def chosen_metrics(scoring: Scoring) -> dict[str, Metric]:
    """Return the metrics that are measured: those that are named, and Dice.

    Verdicts, the order of cases and post-processing need Dice.
    """
    names = scoring.metrics or [USUAL_METRICS]
    chosen: dict[str, Metric] = {}
    for name, entry in all_metrics().items():
        is_usual = entry.usual and USUAL_METRICS in names
        if is_usual or name in names or name == "dice":
            chosen[name] = entry
    return chosen


def check_scoring(scoring: Scoring, targets: Targets) -> None:
    """Check that the options of scoring name targets that there are.

    Raises:
        ConfigError: for a name that is none of the targets'.
    """
    tolerances = scoring.nsd_tolerance_mm
    for name in tolerances if isinstance(tolerances, Mapping) else ():
        if name not in targets:
            known = list(targets)
            raise ConfigError(
                f"nsd_tolerance_mm: {name} is none of {', '.join(known)}.{nearest(name, known)}"
            )


def tolerances_mm(scoring: Scoring, targets: Targets) -> list[float]:
    """Return the NSD's tolerance for each target, mm."""
    tolerances = scoring.nsd_tolerance_mm
    if not isinstance(tolerances, Mapping):
        return [tolerances] * len(targets)
    return [tolerances.get(name, USUAL_TOLERANCE_MM) for name in targets]


def tolerance_text(scoring: Scoring, unit: str = "mm") -> str:
    """Return the NSD's tolerance in words: `1 mm`, or `2 mm (vessel), 1 mm (others)`."""
    tolerances = scoring.nsd_tolerance_mm
    if not isinstance(tolerances, Mapping):
        return f"{tolerances:g} {unit}"
    parts = [f"{tolerance:g} {unit} ({name})" for name, tolerance in tolerances.items()]
    return ", ".join([*parts, f"{USUAL_TOLERANCE_MM:g} {unit} (others)"])
