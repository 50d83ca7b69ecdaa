"""Dice of trained networks on scans that are made ever worse: blurred, noisy, unevenly bright, coarse (Kamath 2023).

A scan is changed as a worse scanner would give it, before it is prepared; the truth stays as it is.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.array import GaussianSmooth, RandBiasField, RandGaussianNoise
from monai.transforms.spatial.array import Resize
from torch import Tensor

from segpipe.config.probe import Robustness
from segpipe.data.cases import Case
from segpipe.data.prepare import prepare_volume, read_labels
from segpipe.errors import ConfigError
from segpipe.files import write_rows
from segpipe.geometry import Grid, Located
from segpipe.io.volumes import read
from segpipe.metrics import dice_per_target, mean_dice
from segpipe.probe.pictures import draw_changes, draw_robustness
from segpipe.probe.trained import TrainedRun, find_cases, open_runs, output_folder, same_targets
from segpipe.terminal import progress_bar, show_next, show_table

log = logging.getLogger("segpipe")
CLEAN = 0.0


@dataclass(frozen=True)
class DegradedScore:
    """Dice of one target of one case that was made worse.

    Attributes:
        network: its name.
        change: blur_mm, noise, bias or coarser.
        strength: of it; 0 = the scan as it is.
        case: the case's name.
        label: the target's name.
        dice: 0 to 1; NaN where neither mask has the target.
    """

    network: str
    change: str
    strength: float
    case: str
    label: str
    dice: float


def blur_mm(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """A Gaussian of this standard deviation, mm; not across the one slice of an image."""
    mm = Grid.of(volume).spacing_mm
    sizes = volume.shape[1:]
    sigma = [
        strength / float(one) if size > 1 else 0.0 for one, size in zip(mm, sizes, strict=True)
    ]
    return GaussianSmooth(sigma)(volume.as_tensor())  # type: ignore[return-value]


def noise(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Gaussian noise of this share of each channel's own deviation."""
    channels = []
    for number, channel in enumerate(volume.as_tensor()):
        add = RandGaussianNoise(prob=1, std=strength * float(channel.std()), sample_std=False)
        add.set_random_state(seed + number)
        channels.append(torch.as_tensor(add(channel[None])))
    return torch.cat(channels)


def bias(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Times the exponential of a random polynomial of degree 3 with coefficients up to this."""
    field = RandBiasField(prob=1, coeff_range=(-strength, strength))
    field.set_random_state(seed)
    return torch.as_tensor(field(volume.as_tensor()))


def coarser(volume: MetaTensor, strength: float, seed: int) -> Tensor:
    """Averaged to voxels this many times as wide, and interpolated back."""
    sizes = list(volume.shape[1:])
    fewer = [max(1, round(size / strength)) for size in sizes]
    small = Resize(fewer, mode="area")(volume.as_tensor())
    return torch.as_tensor(Resize(sizes, mode="trilinear", align_corners=False)(small))


CHANGES: dict[str, Callable[[MetaTensor, float, int], Tensor]] = {
    "blur_mm": blur_mm, "noise": noise, "bias": bias, "coarser": coarser,
}  # fmt: skip
LABELS = {
    "blur_mm": "blur: standard deviation, mm",
    "noise": "noise: share of the scan's deviation",
    "bias": "bias field: largest coefficient",
    "coarser": "lost resolution: voxels times as wide",
}
LEAST = {"coarser": 1.0}  # what means no change, where it is not 0


def degrade(volume: Located, change: str, strength: float, seed: int) -> Located:
    """A scan `(c, x, y, z)` made worse, on its own grid; strength 0 leaves it as it is."""
    if strength == CLEAN:
        return volume
    changed = CHANGES[change](
        MetaTensor(volume.as_tensor().float(), torch.as_tensor(volume.affine)), strength, seed
    )
    return MetaTensor(changed.as_subclass(Tensor), torch.as_tensor(volume.affine))


def robustness(options: Robustness) -> int:
    """Scores networks on changed scans: `robustness.csv`, `robustness.png`, `examples.png` and a table.

    Returns:
        The exit status.

    Raises:
        SegpipeError: if a checkpoint or a case cannot be used.
    """
    runs = open_runs(options)
    same_targets(runs)
    cases, folder = find_cases(options, runs[0].trained), output_folder(options, "robustness")
    trials = [
        (change, strength)
        for change in _asked(options, runs)
        for strength in getattr(options, change)
    ]
    if not trials:
        raise ConfigError(
            "blur_mm, noise, bias and coarser are all empty: give one of them a strength"
        )
    scores: list[DegradedScore] = []
    with progress_bar() as bar:
        scoring = bar.add_task("scoring", total=len(cases) * (1 + len(trials)), note="")
        for number, case in enumerate(cases):
            for change, strength in [("", CLEAN), *trials]:
                scores += _score(runs, case, change, strength, options.seed + 1000 * number)
                bar.advance(scoring)
    write_rows(folder / "robustness.csv", scores)
    _draw_examples(cases[0], trials, options.seed, folder)
    _report([run.name for run in runs], scores, trials, folder)
    return 0


def _asked(options: Robustness, runs: Sequence[TrainedRun]) -> list[str]:
    if options.bias and any("ct" in run.plan.normalise for run in runs):
        log.info("bias: left out, since Hounsfield units have no bias field")
        return [change for change in CHANGES if change != "bias"]
    return list(CHANGES)


def _score(
    runs: Sequence[TrainedRun], case: Case, change: str, strength: float, seed: int
) -> list[DegradedScore]:
    volume = degrade(read(case.images), change, strength, seed)
    scores = []
    for run in runs:
        prediction = run.predictor.segment(prepare_volume(volume, run.plan, case.name))
        truth = read_labels(case, run.plan, prediction.grid).numpy()[0]
        found = dice_per_target(prediction.labels, truth, run.plan.targets)
        scores += [
            DegradedScore(run.name, change, strength, case.name, label, float(dice))
            for label, dice in zip(run.plan.targets, found, strict=True)
        ]
    return scores


def mean_of(scores: Sequence[DegradedScore], network: str, change: str, strength: float) -> float:
    """The mean over targets of means over cases."""
    own = [
        score
        for score in scores
        if (score.network, score.change, score.strength) == (network, change, strength)
    ]
    labels, cases = (
        list(dict.fromkeys(names)) for names in ([s.label for s in own], [s.case for s in own])
    )
    table = np.full((len(cases), len(labels)), np.nan)
    for score in own:
        table[cases.index(score.case), labels.index(score.label)] = score.dice
    return float(np.nanmean(mean_dice(table)))


def _report(
    names: Sequence[str],
    scores: Sequence[DegradedScore],
    trials: Sequence[tuple[str, float]],
    folder: Path,
) -> None:
    clean = [mean_of(scores, name, "", CLEAN) for name in names]
    curves, rows = {}, []
    for change in dict.fromkeys(change for change, _ in trials):
        strengths = [strength for other, strength in trials if other == change]
        dice = np.array(
            [[mean_of(scores, name, change, strength) for strength in strengths] for name in names]
        )
        curves[LABELS[change]] = (
            [LEAST.get(change, CLEAN), *strengths],
            np.column_stack([clean, dice]),
        )
        rows += [
            [f"{change} {strength:g}", *(f"{value:.4f}" for value in column)]
            for strength, column in zip(strengths, dice.T, strict=True)
        ]
    cases = len({score.case for score in scores})
    show_table(
        f"mean Dice of {cases} cases",
        ["scan", *names],
        [["clean", *(f"{value:.4f}" for value in clean)], *rows],
    )
    draw_robustness(names, curves, folder / "robustness.png")
    show_next([("drawn", folder / "robustness.png"), ("table", folder / "robustness.csv")])


def _draw_examples(
    case: Case, trials: Sequence[tuple[str, float]], seed: int, folder: Path
) -> None:
    volume = read(case.images)

    def middle(changed: Located) -> np.ndarray:
        ras = Grid.of(changed).to_ras(changed.as_tensor()[:1])[0]
        return ras[..., ras.shape[2] // 2].numpy()

    rows = {
        change: [(f"{LEAST.get(change, CLEAN):g}", middle(volume))]
        + [
            (f"{by:g}", middle(degrade(volume, change, by, seed)))
            for other, by in trials
            if other == change
        ]
        for change in dict.fromkeys(change for change, _ in trials)
    }
    draw_changes(rows, folder / "examples.png")
