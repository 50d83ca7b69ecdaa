"""What a sweep says: how well each variant does, and what each has more or less than the reference, case by case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.device import choose_device, choose_format
from segpipe.planning.memory import step_mib
from segpipe.stored import read_plan, read_yaml
from segpipe.study.statistics import Difference, Interval, compare, holm, interval, warn_of_few
from segpipe.study.sweep import Sweep, SweepRun, Variant, differ, values

METRICS = {"dice": "Dice", "iou": "IoU", "hd95_mm": "HD95 mm", "nsd": "NSD 1 mm"}
TESTED = (
    "dice",
    "nsd",
)  # IoU says what Dice says; HD95 of a miss is a convention, too coarse for ranks
ALL = "mean"


@dataclass(frozen=True)
class VariantScore:
    """How well a variant finds one target.

    Attributes:
        variant: its name.
        label: the target, or `mean` of all.
        runs: seeds and folds.
        cases: that any of them validated.
        metrics: of each metric the mean over runs, and its interval over cases.
        spread: of each metric the standard deviation over runs; NaN for one run.
        misses: cases, summed over runs, in which only the truth has the target.
        false_alarms: likewise only the prediction.
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
    """What a variant costs.

    Attributes:
        variant: its name.
        parameters: of its network.
        multiply_adds: of one patch.
        step_mib: memory of a training step, by the memory model.
        seconds_per_step: median wall time; the median over runs.
    """

    variant: str
    parameters: int
    multiply_adds: int
    step_mib: float
    seconds_per_step: float


@dataclass(frozen=True)
class Comparison:
    """A variant against the reference, over the runs and cases that both have.

    Attributes:
        variant: compared.
        differences: of each metric.
        p: of each tested metric, after Holm's correction over all of the study's tests.
        per_case: difference of Dice of each case, mean over runs and targets.
        caution: what so few cases or runs cannot tell; else empty.
    """

    variant: Variant
    differences: Mapping[str, Difference]
    p: Mapping[str, float]
    per_case: Mapping[str, float]
    caution: str


@dataclass(frozen=True)
class Evidence:
    """All that a sweep says.

    Attributes:
        sweep: that it is of.
        reference: the variant that the others are compared with.
        standings: of every variant and target, the mean last.
        prices: of every variant.
        comparisons: of every other variant that shares runs with the reference.
        problems: the sweep's, and runs that cannot be compared.
    """

    sweep: Sweep
    reference: Variant
    variant_scores: Sequence[VariantScore]
    costs: Sequence[Cost]
    comparisons: Sequence[Comparison]
    problems: Mapping[str, str]


def analyse(sweep: Sweep, reference: Variant) -> Evidence:
    """Scores of all variants, and the paired comparison of each with the reference."""
    problems, comparisons = dict(sweep.problems), []
    for variant in sweep.variants:
        if (
            variant is not reference
            and (one := _compared(variant, reference, problems)) is not None
        ):
            comparisons.append(one)
    corrected = iter(holm([one.differences[metric].p for one in comparisons for metric in TESTED]))
    comparisons = [
        Comparison(
            one.variant,
            one.differences,
            {metric: next(corrected) for metric in TESTED},
            one.per_case,
            one.caution,
        )
        for one in comparisons
    ]
    variant_scores = [line for variant in sweep.variants for line in _standings(variant)]
    return Evidence(
        sweep,
        reference,
        variant_scores,
        [_price(one) for one in sweep.variants],
        comparisons,
        problems,
    )


def _compared(variant: Variant, reference: Variant, problems: dict[str, str]) -> Comparison | None:
    pairs = []
    for repeat, run in variant.runs.items():
        other = reference.runs.get(repeat)
        if other is None:
            problems[run.folder.name] = (
                f"not compared: the reference has no run of {' '.join(repeat) or 'its seed'}"
            )
        elif why := differ(run, other):
            problems[run.folder.name] = f"not compared: {why}"
        else:
            pairs.append((run, other))
    if not pairs:
        return None
    cases, labels = _cases_and_labels([run for pair in pairs for run in pair])
    tables = {
        metric: [
            [values(run.scores, metric, cases, labels) for run in side]
            for side in zip(*pairs, strict=True)
        ]
        for metric in METRICS
    }
    differences = {metric: compare(*both) for metric, both in tables.items()}
    gained = _mean_over([one - other for one, other in zip(*tables["dice"], strict=True)])
    per_case = dict(zip(cases, _rows(gained), strict=True))
    known = differences["dice"]
    return Comparison(variant, differences, {}, per_case, warn_of_few(known.cases, known.runs))


def _cases_and_labels(runs: Sequence[SweepRun]) -> tuple[list[str], list[str]]:
    scores = [score for run in runs for score in run.scores]
    return list(dict.fromkeys(score.case for score in scores)), list(
        dict.fromkeys(score.label for score in scores)
    )


def _mean_over(
    tables: Sequence[Float[np.ndarray, "cases labels"]],
) -> Float[np.ndarray, "cases labels"]:
    """The mean of tables; NaN where all have it."""
    stacked = np.array(tables)
    known = (~np.isnan(stacked)).sum(axis=0)
    return np.where(known > 0, np.nansum(stacked, axis=0) / np.maximum(known, 1), np.nan)


def _rows(table: Float[np.ndarray, "cases labels"]) -> list[float]:
    return [float(np.nanmean(row)) if not np.isnan(row).all() else float("nan") for row in table]


def _standings(variant: Variant) -> list[VariantScore]:
    runs = list(variant.runs.values())
    cases, labels = _cases_and_labels(runs)
    tables = {
        metric: np.array([values(run.scores, metric, cases, labels) for run in runs])
        for metric in METRICS
    }
    lines = []
    for name, chosen in [
        *((label, [place]) for place, label in enumerate(labels)),
        (ALL, list(range(len(labels)))),
    ]:
        own = [score for run in runs for score in run.scores if name in (score.label, ALL)]
        lines.append(
            VariantScore(
                variant.name,
                name,
                len(runs),
                len(cases),
                {
                    metric: interval(_mean_over(list(table[..., chosen])))
                    for metric, table in tables.items()
                },
                {metric: _spread(table[..., chosen]) for metric, table in tables.items()},
                sum(score.volume_ml == 0 < score.truth_ml for score in own),
                sum(score.truth_ml == 0 < score.volume_ml for score in own),
            )
        )
    return lines


def _spread(tables: Float[np.ndarray, "runs cases labels"]) -> float:
    """Standard deviation over runs of the mean over targets of the means over cases."""
    found = [
        [np.nanmean(column) for column in table.T if not np.isnan(column).all()] for table in tables
    ]
    means = [np.mean(one) for one in found if one]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def _price(variant: Variant) -> Cost:
    run = next(iter(variant.runs.values()))
    options = validate(Train, run.config | {"resume": None})
    number_format = choose_format(options.trainer.precision, choose_device(options.trainer.device))
    plan = read_plan(run.folder / "plan.yaml", read_yaml(run.folder / "plan.yaml"))
    seconds = [run.seconds_per_step for run in variant.runs.values()]
    return Cost(
        variant.name,
        run.network["parameters"],
        run.network["multiply_adds"],
        step_mib(plan, options, number_format),
        float(np.median(seconds)),
    )


def sentence(comparison: Comparison, reference: Variant) -> str:
    """A comparison in plain words, with its interval, its p where there is one, and what it rests on."""
    dice, nsd = (comparison.differences[metric] for metric in TESTED)
    moved = "costs" if dice.interval.mean < 0 else "gains"
    said = f"{_change(comparison.variant, reference)} {moved} {_points(dice.interval)} Dice points"
    said += f", p {_p(comparison.p['dice'])}" if np.isfinite(comparison.p["dice"]) else ""
    said += f", {_counted(dice.cases, 'case')}, {_counted(dice.runs, 'run')} of each"
    said += f"; NSD {100 * nsd.interval.mean:+.1f}"
    low, high = nsd.interval.low, nsd.interval.high
    worse = nsd.interval.mean < dice.interval.mean < 0 and high < 0
    said += f" [{100 * low:.1f}, {100 * high:.1f}]" if np.isfinite(low) else ""
    said += ": the boundary suffers most" if worse else ""
    return said[0].upper() + said[1:] + "."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _points(found: Interval) -> str:
    mean, low, high = (100 * value for value in (found.mean, found.low, found.high))
    if mean < 0:
        mean, low, high = -mean, -high, -low
    return f"{mean:.1f}" + (f" [{low:.1f}, {high:.1f}]" if np.isfinite(low) else "")


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _change(variant: Variant, reference: Variant) -> str:
    """What is done to the reference, in words."""
    own = [word for word in variant.overrides if word not in reference.overrides]
    return " and ".join(_said(word) for word in own)


def _said(override: str) -> str:
    key, _, value = override.partition("=")
    kinds = {"model.long_skips": "long skips", "model.short_skips": "short skips"}
    if key not in kinds:
        return f"{key.removeprefix('model.')}={value}"
    entries = value.strip("[]").split(",")
    if set(entries) == {"none"}:
        return f"taking away all {kinds[key]}"
    if len(entries) > 1 and entries.count("none") == 1:
        level = entries.index("none")
        which = {0: "the finest", len(entries) - 1: "the coarsest"}.get(level, f"level {level}'s")
        return f"taking away {which} {kinds[key].rstrip('s')}"
    return f"switching {kinds[key]} to {value}"
