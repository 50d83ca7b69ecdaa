"""The results of a sweep: scores and cost of each variant, and paired comparisons with one."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from segpipe.intervals import Interval, cases_and_labels, interval, metric_table
from segpipe.metrics import Metric, Score, metrics_of
from segpipe.study.cost import Cost, cost_of
from segpipe.study.statistics import (
    LEAST_RUNS,
    Difference,
    compare,
    holm,
    mean_of_rows,
    mean_over_runs,
    spread_over_runs,
    warn_of_few,
    warn_of_few_cases,
)
from segpipe.study.sweep import ScoredRun, Sweep, SweepRun, Variant, led_by, why_not_comparable
from segpipe.units import Units

ALL = "mean"  # stands for all targets
MAIN = "dice"  # the metric of the single cases
Tables = list[Float[np.ndarray, "cases labels"]]  # one per run


@dataclass(frozen=True)
class VariantScore:
    """The scores of one target by a variant.

    Attributes:
        variant: name of the variant.
        label: name of the target, or `mean` for all.
        runs: number of runs, over seeds and folds.
        cases: number of cases that any of the runs validated.
        metrics: for each metric the mean over runs, and its interval over cases.
        spread: for each metric the standard deviation over runs; NaN for one run.
        misses: cases, summed over runs, in which only the truth has the target.
        false_alarms: cases, summed over runs, in which only the prediction has it.
    """

    variant: str
    label: str
    runs: int
    cases: int
    metrics: Mapping[str, Interval]
    spread: Mapping[str, float]
    misses: int
    false_alarms: int


@dataclass(frozen=True)
class Comparison:
    """A variant minus the reference, over the runs and cases that both have.

    Attributes:
        variant: that is compared.
        differences: the differences of each metric.
        p: the p-value of each tested metric, after Holm's correction over all tests of the study.
        per_case: case -> difference of Dice, the mean over runs and targets.
        caution: what so few cases or runs cannot tell; else empty.
    """

    variant: Variant
    differences: Mapping[str, Difference]
    p: Mapping[str, float]
    per_case: Mapping[str, float]
    caution: str


@dataclass(frozen=True)
class Evidence:
    """The results of a sweep.

    Attributes:
        sweep: that was analysed.
        reference: the variant that the others are compared with, the first of the sweep.
        variant_scores: the scores of every variant and target, the mean last.
        costs: the costs of every variant; empty where they are not known.
        comparisons: the comparisons of every other variant that shares runs with the reference.
        problems: the problems of the sweep, and of runs that cannot be compared.
        metrics: that any of the runs has, by name; of those that a study shows.
        noun: what is compared.
        margin: loss of Dice that would not matter; None where that is not asked.
    """

    sweep: Sweep
    reference: Variant
    variant_scores: Sequence[VariantScore]
    costs: Sequence[Cost]
    comparisons: Sequence[Comparison]
    problems: Mapping[str, str]
    metrics: Mapping[str, Metric]
    noun: str = "variant"
    margin: float | None = None

    @property
    def units(self) -> Units:
        """Return the units in which lengths are shown: those of the reference's dataset."""
        return self.reference.first_run.units

    @property
    def tested(self) -> dict[str, Metric]:
        """Return the metrics whose differences are tested."""
        return {name: metric for name, metric in self.metrics.items() if metric.tested}

    @property
    def mean_scores(self) -> list[VariantScore]:
        """Return the mean over targets of every variant."""
        return [score for score in self.variant_scores if score.label == ALL]


def analyse(sweep: Sweep[SweepRun], reference: Variant[SweepRun]) -> Evidence:
    """Return scores and costs of all variants, and their comparisons with the reference."""
    sweep = led_by(sweep, reference)
    problems = dict(sweep.problems)
    metrics = _measured(sweep)
    comparisons: list[Comparison] = []
    scores: list[VariantScore] = []
    for variant in sweep.variants:
        scores += _score(variant, metrics)
        if variant is reference:
            continue
        pairs = _pair_runs(variant, reference, problems)
        if pairs:
            runs = [run for run, _ in pairs]
            partners = [partner for _, partner in pairs]
            comparisons.append(_compare(variant, runs, partners, metrics, same_seeds=True))
    costs = list(map(cost_of, sweep.variants))
    compared = _corrected(comparisons, metrics)
    return Evidence(sweep, reference, scores, costs, compared, problems, metrics)


def _measured(sweep: Sweep) -> dict[str, Metric]:
    """Return the metrics that a study shows, as far as any run has them."""
    scores: list[Score] = []
    for variant in sweep.variants:
        for run in variant.runs.values():
            scores += run.scores
    return metrics_of("study", scores)


def analyse_systems(systems: Sweep, reference: Variant, margin: float | None) -> Evidence:
    """Return scores of systems of any origin on the same cases, and their comparisons with one.

    Args:
        systems: with the cases that are left out as problems.
        reference: one of them.
        margin: loss of Dice that would not matter; None: that is not asked.
    """
    systems = led_by(systems, reference)
    comparisons: list[Comparison] = []
    scores: list[VariantScore] = []
    partners = list(reference.runs.values())
    metrics = _measured(systems)
    for system in systems.variants:
        scores += _score(system, metrics)
        if system is not reference:
            runs = list(system.runs.values())
            comparisons.append(_compare(system, runs, partners, metrics, same_seeds=False))
    compared = _corrected(comparisons, metrics)
    return Evidence(
        systems,
        reference,
        scores,
        [],
        compared,
        systems.problems,
        metrics,
        noun="system",
        margin=margin,
    )


def _corrected(
    comparisons: Sequence[Comparison], metrics: Mapping[str, Metric]
) -> list[Comparison]:
    """Return comparisons with p-values that are corrected for the number of all tests."""
    tested = [name for name, metric in metrics.items() if metric.tested]
    p_values: list[float] = []
    for comparison in comparisons:
        p_values += [comparison.differences[metric].p for metric in tested]
    table = np.array(holm(p_values)).reshape(len(comparisons), len(tested)).tolist()
    corrected: list[Comparison] = []
    for comparison, row in zip(comparisons, table, strict=True):
        corrected.append(replace(comparison, p=dict(zip(tested, row, strict=True))))
    return corrected


def _pair_runs(
    variant: Variant[SweepRun], reference: Variant[SweepRun], problems: dict[str, str]
) -> list[tuple[SweepRun, SweepRun]]:
    """Return runs of the same seed and fold; add those without a partner to the problems."""
    pairs: list[tuple[SweepRun, SweepRun]] = []
    for repeat, run in variant.runs.items():
        partner = reference.runs.get(repeat)
        if partner is None:
            name = " ".join(repeat) or "its seed"
            problem = f"the reference has no run of {name}"
        else:
            problem = why_not_comparable(run, partner)
        if problem:
            problems[run.folder.name] = f"not compared: {problem}"
        elif partner is not None:
            pairs.append((run, partner))
    return pairs


def _compare(
    variant: Variant,
    runs: Sequence[ScoredRun],
    partners: Sequence[ScoredRun],
    metrics: Iterable[str],
    same_seeds: bool,
) -> Comparison:
    """Return the differences of runs to those of the reference.

    Args:
        variant: the variant of the runs.
        runs: the runs of the variant.
        partners: the runs of the reference.
        metrics: that are compared.
        same_seeds: whether each run has a partner of its seed and fold; else they are averaged.
    """
    cases, labels = _cases_and_labels([*runs, *partners])
    least_runs = LEAST_RUNS if same_seeds else 1
    differences: dict[str, Difference] = {}
    per_case: dict[str, float] = {}
    for metric in metrics:
        own = _tables(runs, metric, cases, labels)
        others = _tables(partners, metric, cases, labels)
        if not same_seeds:
            own = [mean_over_runs(np.array(own))]
            others = [mean_over_runs(np.array(others))]
        differences[metric] = compare(own, others, least_runs)
        if metric == MAIN:
            gains = mean_over_runs(np.array(own) - np.array(others))
            per_case = dict(zip(cases, mean_of_rows(gains), strict=True))
    main = differences[MAIN]
    few = warn_of_few(main.cases, main.runs) if same_seeds else warn_of_few_cases(main.cases)
    return Comparison(variant, differences, {}, per_case, few)


def _tables(
    runs: Sequence[ScoredRun], metric: str, cases: Sequence[str], labels: Sequence[str]
) -> Tables:
    return [metric_table(run.scores, metric, cases, labels) for run in runs]


def _cases_and_labels(runs: Sequence[ScoredRun]) -> tuple[list[str], list[str]]:
    """Return the names of all cases and targets of runs, in the order in which they occur."""
    return cases_and_labels(itertools.chain.from_iterable(run.scores for run in runs))


def _score(variant: Variant, measured: Iterable[str]) -> list[VariantScore]:
    """Return the scores of each target, and of all."""
    runs = list(variant.runs.values())
    cases, labels = _cases_and_labels(runs)
    tables: dict[str, np.ndarray] = {}
    for metric in measured:
        tables[metric] = np.array(_tables(runs, metric, cases, labels))
    lines: list[VariantScore] = []
    for label in [*labels, ALL]:
        columns = np.flatnonzero([label in (name, ALL) for name in labels])
        metrics: dict[str, Interval] = {}
        spread: dict[str, float] = {}
        for metric, table in tables.items():
            metrics[metric] = interval(mean_over_runs(table[..., columns]))
            spread[metric] = spread_over_runs(table[..., columns])
        misses, alarms = _count_misses(runs, label)
        lines.append(
            VariantScore(
                variant.name, label, len(runs), len(cases), metrics, spread, misses, alarms
            )
        )
    return lines


def _count_misses(runs: Sequence[ScoredRun], label: str) -> tuple[int, int]:
    """Return the misses and the false alarms of a target, or of all, in all runs."""
    misses = 0
    false_alarms = 0
    for run in runs:
        for score in run.scores:
            if label in (score.label, ALL):
                misses += score.is_miss
                false_alarms += score.is_false_alarm
    return misses, false_alarms
