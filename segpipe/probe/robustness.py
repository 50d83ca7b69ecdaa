"""The Dice of trained networks on scans that are made worse step by step (Kamath 2023).

A scan is changed before it is prepared; the truth stays as it is.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segpipe.config.probe import Robustness
from segpipe.data.cases import Case
from segpipe.data.degradation import CHANGES, CLEAN, degrade
from segpipe.data.prepare import prepare_volume, read_labels
from segpipe.errors import ConfigError
from segpipe.files import write_rows
from segpipe.geometry import Grid, Located
from segpipe.io.volumes import load, read
from segpipe.metrics import dice_per_target, mean_dice
from segpipe.probe.robustness_picture import Curves, draw_changes, draw_robustness
from segpipe.probe.trained import TrainedRun, find_cases, open_runs, output_folder, same_targets
from segpipe.terminal import progress_bar, show_next, show_table
from segpipe.text import count
from segpipe.units import UNITS, Units

log = logging.getLogger("segpipe")
Trial = tuple[str, float]  # a change and its strength
SEEDS_PER_CASE = 1000  # from one case's seed to the next: room for one per channel


@dataclass(frozen=True)
class DegradedScore:
    """The Dice of one target of one case that was made worse.

    Attributes:
        network: name of the network.
        change: blur_mm, noise, bias or coarser; empty for the scan as it is.
        strength: the strength of the change; 0 for the scan as it is.
        case: name of the case.
        label: name of the target.
        dice: 0 to 1; NaN where neither mask has the target.
    """

    network: str
    change: str
    strength: float
    case: str
    label: str
    dice: float


def robustness(options: Robustness) -> int:
    """Score networks on changed scans.

    Writes `robustness.csv`, `robustness.png` and `examples.png`, and prints a table.

    Returns:
        The exit status.

    Raises:
        SegpipeError: if a checkpoint or a case cannot be used.
    """
    runs = open_runs(options)
    same_targets(runs)
    cases = find_cases(options, runs[0].trained)
    folder = output_folder(options, "robustness")
    trials = _trials(options, runs)
    scores = _score_all(runs, cases, trials, options.seed)
    write_rows(folder / "robustness.csv", scores)
    _draw_examples(cases[0], trials, options.seed, folder / "examples.png")
    units = UNITS[runs[0].plan.unit]
    curves = _curves([run.name for run in runs], scores, trials, units)
    draw_robustness(curves, folder / "robustness.png")
    _show(curves, len(cases))
    table = folder / "robustness.csv"
    show_next([("drawn", folder / "robustness.png"), ("table", table)])
    return 0


def _trials(options: Robustness, runs: Sequence[TrainedRun]) -> list[Trial]:
    """Return the changes and strengths that were requested; no bias field for CT.

    Raises:
        ConfigError: if there are none.
    """
    ct = any("ct" in run.plan.normalise for run in runs)
    if options.bias and ct:
        log.info("bias: left out, since Hounsfield units have no bias field")
    trials = []
    for change in CHANGES:
        if change == "bias" and ct:
            continue
        for strength in getattr(options, change):
            trials.append((change, strength))
    if not trials:
        raise ConfigError(
            "blur_mm, noise, bias and coarser are all empty: give one of them a strength"
        )
    return trials


def _score_all(
    runs: Sequence[TrainedRun], cases: Sequence[Case], trials: Sequence[Trial], seed: int
) -> list[DegradedScore]:
    scores: list[DegradedScore] = []
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(cases) * (1 + len(trials)), note="")
        for index, case in enumerate(cases):
            for trial in [("", CLEAN), *trials]:
                scores += _score(runs, case, trial, seed + SEEDS_PER_CASE * index)
                bar.advance(task)
    return scores


def _score(runs: Sequence[TrainedRun], case: Case, trial: Trial, seed: int) -> list[DegradedScore]:
    """Score all networks on one case with one change."""
    volume = degrade(read(case.images, partial(load, nan=runs[0].plan.nan)), *trial, seed)
    scores = []
    for run in runs:
        prediction = run.predictor.segment(prepare_volume(volume, run.plan, case.name))
        truth = read_labels(case, run.plan, prediction.grid).numpy()[0]
        values = dice_per_target(prediction.labels, truth, run.plan.targets)
        for label, dice in zip(run.plan.targets, values, strict=True):
            scores.append(DegradedScore(run.name, *trial, case.name, label, float(dice)))
    return scores


def mean_of(scores: Sequence[DegradedScore], network: str, change: str, strength: float) -> float:
    """Return the mean Dice of one network under one change: over cases, then over targets."""
    by_label: dict[str, list[float]] = {}
    for score in scores:
        if (score.network, score.change, score.strength) == (network, change, strength):
            by_label.setdefault(score.label, []).append(score.dice)
    table = np.array(list(by_label.values())).T
    return float(np.nanmean(mean_dice(table)))


def _curves(
    networks: Sequence[str],
    scores: Sequence[DegradedScore],
    trials: Sequence[Trial],
    units: Units,
) -> Curves:
    """Return the mean Dice of each network under each change, the clean scans first."""
    by_change: dict[str, list[float]] = {}
    for change, strength in trials:
        by_change.setdefault(change, []).append(strength)
    dice = {}
    for change, strengths in by_change.items():
        rows = []
        for network in networks:
            row = [mean_of(scores, network, "", CLEAN)]
            for strength in strengths:
                row.append(mean_of(scores, network, change, strength))
            rows.append(row)
        dice[change] = np.array(rows)
    return Curves(list(networks), by_change, dice, units)


def _show(curves: Curves, cases: int) -> None:
    rows = []
    for change, strengths in curves.strengths.items():
        clean, *columns = curves.dice[change].T
        if not rows:
            rows.append(["clean", *_formatted(clean)])
        for strength, column in zip(strengths, columns, strict=True):
            rows.append([f"{change.removesuffix('_mm')} {strength:g}", *_formatted(column)])
    show_table(f"mean Dice of {count(cases, 'case')}", ["scan", *curves.networks], rows)


def _formatted(values: np.ndarray) -> list[str]:
    return [f"{value:.4f}" for value in values]


def _draw_examples(case: Case, trials: Sequence[Trial], seed: int, picture: Path) -> None:
    """Draw the middle slice of a case under each change."""
    volume = read(case.images, partial(load, nan="fill"))
    rows: dict[str, list[tuple[str, np.ndarray]]] = {}
    for change, strength in trials:
        if change not in rows:
            rows[change] = [(f"{CHANGES[change].unchanged:g}", _middle_slice(volume))]
        changed = degrade(volume, change, strength, seed)
        rows[change].append((f"{strength:g}", _middle_slice(changed)))
    draw_changes(rows, picture)


def _middle_slice(volume: Located) -> np.ndarray:
    """Return the axial slice in the middle of the first channel, in RAS+."""
    ras = Grid.of(volume).to_ras(volume.as_tensor()[:1])[0]
    return ras[..., ras.shape[2] // 2].numpy()
