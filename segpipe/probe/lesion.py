"""Skip lesions: how much a trained network relies on each of its long skips.

One long skip at a time is replaced where it enters the decoder, and whole scans are segmented. The
network is not trained again: one that was trained without the skip may do better.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from monai.transforms.croppad.array import ResizeWithPadOrCrop
from torch import Tensor

from segpipe.config.probe import Lesion
from segpipe.config.scoring import USUAL
from segpipe.data.cases import Case
from segpipe.data.prepare import PreparedScan
from segpipe.errors import ConfigError
from segpipe.files import write_rows
from segpipe.metric_record import mean_of_known
from segpipe.metrics import Score, score_case, summarise
from segpipe.nets.skip_inputs import SkipInput, skip_inputs
from segpipe.prediction.predictor import Predictor
from segpipe.probe.lesion_picture import SkipLoss, draw_lesions
from segpipe.probe.replacements import Shuffled, SkipMeans, replaced
from segpipe.probe.trained import TrainedRun, find_cases, open_runs, output_folder, read_case
from segpipe.terminal import progress_bar, show_next, show_table
from segpipe.text import count, times

log = logging.getLogger("segpipe")
Replacement = Literal["zero", "mean", "shuffle"]
INTACT = "none"
COLUMNS = [
    "long skip",
    "size",
    "replaced by",
    "Dice lost",
    "NSD lost",
    "Dice, worst case",
    "NSD, worst case",
]


@dataclass(frozen=True)
class LesionScore:
    """The scores of one target of one case, segmented with one long skip replaced.

    Attributes:
        skip: name of the long skip; empty where none was replaced.
        lesion: zero, mean or shuffle; none where no skip was replaced.
        case: name of the case.
        label: name of the target.
        dice: 0 to 1.
        nsd: 0 to 1.
        dice_lost: Dice of the intact network minus this one's.
        nsd_lost: NSD of the intact network minus this one's.
    """

    skip: str
    lesion: str
    case: str
    label: str
    dice: float
    nsd: float
    dice_lost: float
    nsd_lost: float


def lesion(options: Lesion) -> int:
    """Score a network with each of its long skips replaced.

    Writes `lesion.csv` and `lesion.png`, and prints a table.

    Returns:
        The exit status.

    Raises:
        SegpipeError: if the checkpoint or its cases cannot be used, or its network has no long skip
            that could be replaced.
    """
    (run,) = open_runs(options)
    probe = LesionProbe(run, find_cases(options, run.trained), options)
    folder = output_folder(options, "lesion")
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=probe.steps, note="")
        probe.measure(lambda: bar.advance(task))
    write_rows(folder / "lesion.csv", probe.rows)
    mean = summarise(probe.intact)[-1]
    cases = count(len(probe.cases), "case")
    title = f"{cases}; whole network: Dice {mean.dice:.4f}, NSD {mean.nsd:.4f}"
    picture = folder / "lesion.png"
    draw_lesions(probe.losses, f"what is lost without a long skip ({title})", picture)
    _show(probe.losses, title)
    show_next([("drawn", picture), ("table", folder / "lesion.csv")])
    return 0


class LesionProbe:
    """One network and its scores with each of its long skips replaced.

    Args:
        run: the run whose network is probed.
        cases: the cases to segment.
        options: the options, which name the replacements.

    Attributes:
        intact: scores of the intact network.
        rows: all scores.
        losses: the loss for each skip and replacement, the finest skip first.

    Raises:
        ConfigError: if the network has no long skip that could be replaced, or there are too few
            cases.
    """

    def __init__(self, run: TrainedRun, cases: Sequence[Case], options: Lesion) -> None:
        self.run = run
        self.cases = cases
        self.options = options
        self.skips = skip_inputs(run.trained.network)
        self.means = {skip.name: SkipMeans() for skip in self.skips}
        self.intact: list[Score] = []
        self.rows: list[LesionScore] = []
        self.losses: list[SkipLoss] = []
        if "shuffle" in options.lesions and len(cases) < 2:
            raise ConfigError(
                f"lesions: shuffle needs two cases, there is {len(cases)}: name more, or leave it "
                "out"
            )

    @property
    def steps(self) -> int:
        """How often a case is segmented."""
        return len(self.cases) * (1 + len(self.skips) * len(self.options.lesions))

    def measure(self, progress: Callable[[], object]) -> None:
        """Score the intact network, then every replacement; call `progress` after each case."""
        self._score_intact(progress)
        self.rows += _rows("", INTACT, self.intact, self.intact)
        for skip in sorted(self.skips, key=self._voxels, reverse=True):
            for replacement in self.options.lesions:
                self._score_lesion(skip, replacement, progress)

    def _score_intact(self, progress: Callable[[], object] = lambda: None) -> None:
        """Score the network as it is, and record the means of its long skips meanwhile."""
        handles = [skip.intercept(self.means[skip.name].record) for skip in self.skips]
        try:
            for case in self.cases:
                scan, truth = read_case(case, self.run.plan)
                self.intact += self._score(self.run.predictor, case, scan, truth)
                progress()
        finally:
            for handle in handles:
                handle.remove()

    def _voxels(self, skip: SkipInput) -> int:
        return int(np.prod(self.means[skip.name].size))

    def _score_lesion(
        self, skip: SkipInput, replacement: Replacement, progress: Callable[[], object]
    ) -> None:
        scores: list[Score] = []
        for index in range(len(self.cases)):
            scores += self._score_case(index, skip, replacement)
            progress()
        rows = _rows(skip.name, replacement, scores, self.intact)
        self.rows += rows
        loss = _loss(skip.name, self.means[skip.name].size, replacement, scores, self.intact, rows)
        self.losses.append(loss)

    def _score_case(self, index: int, skip: SkipInput, replacement: Replacement) -> list[Score]:
        """Score one case with one skip replaced, in a shuffle by that of the next case."""
        case = self.cases[index]
        scan, truth = read_case(case, self.run.plan)
        if replacement == "shuffle":
            other = self.cases[(index + 1) % len(self.cases)]
            predictor = self.run.predictor.with_network(Shuffled(self.run.predictor.network, skip))
            return self._score(predictor, case, self._with_other(scan, other), truth)
        change = torch.zeros_like if replacement == "zero" else self.means[skip.name].like
        with replaced(skip, change):
            return self._score(self.run.predictor, case, scan, truth)

    def _with_other(self, scan: PreparedScan, other: Case) -> PreparedScan:
        """Append the channels of another scan, centred on this one."""
        image = read_case(other, self.run.plan)[0].image
        centred = ResizeWithPadOrCrop(scan.image.shape[1:], mode="edge")(image)
        centred = torch.as_tensor(centred).as_subclass(Tensor)
        return replace(scan, image=torch.cat([scan.image, centred]))

    def _score(
        self, predictor: Predictor, case: Case, scan: PreparedScan, truth: np.ndarray
    ) -> list[Score]:
        prediction = predictor.segment(scan)
        return score_case(
            case.name,
            prediction.labels,
            truth,
            prediction.grid.spacing_mm,
            predictor.plan.targets,
            USUAL.model_copy(update={"nsd_tolerance_mm": self.options.nsd_tolerance_mm}),
        )


def _rows(
    skip: str, lesion: str, scores: Sequence[Score], intact: Sequence[Score]
) -> list[LesionScore]:
    rows = []
    for score, before in zip(scores, intact, strict=True):
        row = LesionScore(
            skip=skip,
            lesion=lesion,
            case=score.case,
            label=score.label,
            dice=score.dice,
            nsd=score.nsd,
            dice_lost=before.dice - score.dice,
            nsd_lost=before.nsd - score.nsd,
        )
        rows.append(row)
    return rows


def _loss(
    skip: str,
    size: tuple[int, ...],
    lesion: str,
    scores: Sequence[Score],
    intact: Sequence[Score],
    rows: Sequence[LesionScore],
) -> SkipLoss:
    mean = summarise(scores)[-1]
    before = summarise(intact)[-1]
    lost_of: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        lost_of.setdefault(row.case, []).append((row.dice_lost, row.nsd_lost))
    per_case = []
    for lost in lost_of.values():
        per_case.append(list(map(mean_of_known, zip(*lost, strict=True))))
    losses = np.array(per_case).T
    return SkipLoss(skip, size, lesion, before.dice - mean.dice, before.nsd - mean.nsd, losses)


def _show(losses: Sequence[SkipLoss], title: str) -> None:
    rows = []
    for loss in losses:
        worst_dice, worst_nsd = np.nanmax(loss.cases, axis=1)
        values = (loss.dice, loss.nsd, worst_dice, worst_nsd)
        formatted = [f"{value:+.4f}" for value in values]
        rows.append([loss.skip, times(loss.size), loss.lesion, *formatted])
    show_table(title, COLUMNS, rows)
