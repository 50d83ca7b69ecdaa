"""The results of a sweep: scores and cost of each variant, and paired comparisons with one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from segpipe.device import choose_device, choose_format
from segpipe.metrics import metrics_of
from segpipe.planning.memory import step_mib
from segpipe.stored import read_plan, read_train_options, read_yaml
from segpipe.study.statistics import Difference, Interval, compare, holm, interval, warn_of_few
from segpipe.study.sweep import Sweep, SweepRun, Variant, metric_table, why_not_comparable
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
class Cost:
    """The cost of a variant.

    Attributes:
        variant: name of the variant.
        parameters: of its network.
        multiply_adds: for one patch.
        step_mib: memory of a training step by the memory model, MiB.
        seconds_per_step: median wall time of a step; the median over runs, s.
    """

    variant: str
    parameters: int
    multiply_adds: int
    step_mib: float
    seconds_per_step: float


@dataclass(frozen=True)
class Comparison:
    """A variant minus the reference, over the runs and cases that both have.

    Attributes:
        variant: that is compared.
        differences: of each metric.
        p: of each tested metric, after Holm's correction over all tests of the study.
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
        reference: the variant that the others are compared with.
        variant_scores: of every variant and target, the mean last.
        costs: of every variant.
        comparisons: of every other variant that shares runs with the reference.
        problems: of the sweep, and of runs that cannot be compared.
    """

    sweep: Sweep
    reference: Variant
    variant_scores: Sequence[VariantScore]
    costs: Sequence[Cost]
    comparisons: Sequence[Comparison]
    problems: Mapping[str, str]

    @property
    def units(self) -> Units:
        """Return the units in which lengths are shown: those of the reference's dataset."""
        return self.reference.first_run.units

    @property
    def mean_scores(self) -> list[VariantScore]:
        """Return the mean over targets of every variant."""
        return [score for score in self.variant_scores if score.label == ALL]


def analyse(sweep: Sweep, reference: Variant) -> Evidence:
    """Return scores and costs of all variants, and their comparisons with the reference."""
    problems = dict(sweep.problems)
    comparisons: list[Comparison] = []
    scores: list[VariantScore] = []
    for variant in sweep.variants:
        scores += _score(variant)
        if variant is reference:
            continue
        pairs = _pair_runs(variant, reference, problems)
        if pairs:
            comparisons.append(_compare(variant, pairs))
    costs = list(map(_cost, sweep.variants))
    return Evidence(sweep, reference, scores, costs, _corrected(comparisons), problems)


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with p-values that are corrected for the number of all tests."""
    tested = list(metrics_of("tests"))
    p_values: list[float] = []
    for comparison in comparisons:
        p_values += [comparison.differences[metric].p for metric in tested]
    table = np.array(holm(p_values)).reshape(len(comparisons), len(tested)).tolist()
    corrected: list[Comparison] = []
    for comparison, row in zip(comparisons, table, strict=True):
        corrected.append(replace(comparison, p=dict(zip(tested, row, strict=True))))
    return corrected


def _pair_runs(
    variant: Variant, reference: Variant, problems: dict[str, str]
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


def _compare(variant: Variant, pairs: Sequence[tuple[SweepRun, SweepRun]]) -> Comparison:
    runs = [run for run, _ in pairs]
    partners = [partner for _, partner in pairs]
    cases, labels = _cases_and_labels([*runs, *partners])
    differences: dict[str, Difference] = {}
    for metric in metrics_of("study"):
        tables = _tables(runs, metric, cases, labels)
        differences[metric] = compare(tables, _tables(partners, metric, cases, labels))
    tables = _tables(runs, MAIN, cases, labels)
    gains = np.array(tables) - np.array(_tables(partners, MAIN, cases, labels))
    per_case = dict(zip(cases, _mean_of_rows(_mean_over_runs(gains)), strict=True))
    main = differences[MAIN]
    return Comparison(variant, differences, {}, per_case, warn_of_few(main.cases, main.runs))


def _tables(
    runs: Sequence[SweepRun], metric: str, cases: Sequence[str], labels: Sequence[str]
) -> Tables:
    return [metric_table(run.scores, metric, cases, labels) for run in runs]


def _cases_and_labels(runs: Sequence[SweepRun]) -> tuple[list[str], list[str]]:
    """Return the names of all cases and targets, in the order in which they occur."""
    cases: dict[str, None] = {}
    labels: dict[str, None] = {}
    for run in runs:
        for score in run.scores:
            cases[score.case] = None
            labels[score.label] = None
    return list(cases), list(labels)


def _mean_over_runs(
    tables: Float[np.ndarray, "runs cases labels"],
) -> Float[np.ndarray, "cases labels"]:
    """Return the mean over the runs that have a value; NaN where none has."""
    runs = (~np.isnan(tables)).sum(axis=0)
    return np.where(runs > 0, np.nansum(tables, axis=0) / np.maximum(runs, 1), np.nan)


def _mean_of_rows(table: Float[np.ndarray, "cases labels"]) -> list[float]:
    means = np.full(len(table), np.nan)
    known = ~np.isnan(table).all(axis=1)
    means[known] = np.nanmean(table[known], axis=1)
    return means.tolist()


def _score(variant: Variant) -> list[VariantScore]:
    """Return the scores of each target, and of all."""
    runs = list(variant.runs.values())
    cases, labels = _cases_and_labels(runs)
    tables: dict[str, np.ndarray] = {}
    for metric in metrics_of("study"):
        tables[metric] = np.array(_tables(runs, metric, cases, labels))
    lines: list[VariantScore] = []
    for label in [*labels, ALL]:
        columns = np.flatnonzero([label in (name, ALL) for name in labels])
        metrics: dict[str, Interval] = {}
        spread: dict[str, float] = {}
        for metric, table in tables.items():
            metrics[metric] = interval(_mean_over_runs(table[..., columns]))
            spread[metric] = _spread(table[..., columns])
        misses, alarms = _count_misses(runs, label)
        lines.append(
            VariantScore(
                variant.name, label, len(runs), len(cases), metrics, spread, misses, alarms
            )
        )
    return lines


def _count_misses(runs: Sequence[SweepRun], label: str) -> tuple[int, int]:
    """Return the misses and the false alarms of a target, or of all, in all runs."""
    misses = 0
    false_alarms = 0
    for run in runs:
        for score in run.scores:
            if label in (score.label, ALL):
                misses += score.is_miss
                false_alarms += score.is_false_alarm
    return misses, false_alarms


def _spread(tables: Float[np.ndarray, "runs cases labels"]) -> float:
    """Return the standard deviation over runs of the mean over targets and cases."""
    means: list[float] = []
    for table in tables:
        known = table[:, ~np.isnan(table).all(axis=0)]
        if known.size:
            means.append(float(np.nanmean(known, axis=0).mean()))
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def _cost(variant: Variant) -> Cost:
    run = variant.first_run
    options = read_train_options(run.folder / "config.yaml", read_yaml(run.folder / "config.yaml"))
    number_format = choose_format(options.trainer.precision, choose_device(options.trainer.device))
    plan = read_plan(run.folder / "plan.yaml", run.plan)
    network = run.json("network.json")
    return Cost(
        variant.name,
        network["parameters"],
        network["multiply_adds"],
        step_mib(plan, options, number_format),
        float(np.median([run.seconds_per_step for run in variant.runs.values()])),
    )
