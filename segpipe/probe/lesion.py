"""Skip lesions: what a trained network takes from each of its long skips, without training it again.

One long skip at a time is replaced where it enters the decoder, and whole scans are segmented. What is lost is what
this very network takes from the skip; a network that was trained without it may do better.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from monai.transforms.croppad.array import ResizeWithPadOrCrop
from torch import Tensor, nn

from segpipe.config.probe import Lesion
from segpipe.data.cases import Case
from segpipe.data.prepare import PreparedScan
from segpipe.errors import ConfigError
from segpipe.files import write_rows
from segpipe.metrics import Score, score_case, summarise
from segpipe.nets.skip_inputs import SkipInput, skip_inputs
from segpipe.prediction.predictor import Predictor
from segpipe.probe.pictures import Loss, draw_lesions
from segpipe.probe.trained import TrainedRun, find_cases, open_runs, output_folder, read_case
from segpipe.terminal import progress_bar, show_next, show_table

log = logging.getLogger("segpipe")
Kind = Literal["zero", "mean", "shuffle"]
INTACT = "none"


@dataclass(frozen=True)
class LesionScore:
    """One target of one case, segmented with one long skip replaced.

    Attributes:
        skip: which one; empty where none was replaced.
        lesion: zero, mean, shuffle, or none.
        case: the case's name.
        label: the target's name.
        dice: 0 to 1.
        nsd: 0 to 1.
        dice_lost: Dice of the whole network less this.
        nsd_lost: likewise.
    """

    skip: str
    lesion: str
    case: str
    label: str
    dice: float
    nsd: float
    dice_lost: float
    nsd_lost: float


class Means:
    """Notes what comes through a skip: its size, and each channel's mean over space and cases."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.values, self.size = 0, ()

    def __call__(self, skip: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """Lets the skip through."""
        sums = skip.double().sum([0, *range(2, skip.ndim)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.values += len(skip) * skip[0, 0].numel()
        self.size = tuple(skip.shape[2:])
        return skip

    def instead(self, skip: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """The means in place of a skip."""
        assert self.sums is not None
        return (
            (self.sums / self.values).to(skip).view(1, -1, *[1] * (skip.ndim - 2)).expand_as(skip)
        )


class Shuffled(nn.Module):
    """A network one of whose skips comes from another scan, which is given as further channels of each window.

    Args:
        network: maps `(b, c, *space)` to logits.
        entrance: of the skip.
    """

    def __init__(self, network: nn.Module, entrance: SkipInput) -> None:
        super().__init__()
        self.network, self.entrance = network, entrance

    def forward(self, x: Float[Tensor, "b two_c *space"]) -> Float[Tensor, "b k *space"]:
        """Logits of the first half of the channels, with the skip of the other half."""
        own, other = x.chunk(2, 1)
        found: list[Tensor] = []

        def keep(skip: Tensor) -> Tensor:
            found.append(skip)
            return skip

        with replaced(self.entrance, keep):
            self.network(other)
        with replaced(self.entrance, lambda _: found[0]):
            return self.network(own)


@contextmanager
def replaced(entrance: SkipInput, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While this is open, `change` makes what comes through a skip."""
    handle = entrance.intercept(change)
    try:
        yield
    finally:
        handle.remove()


def lesion(options: Lesion) -> int:
    """Scores a network with each of its long skips replaced: `lesion.csv`, `lesion.png` and a table.

    Returns:
        The exit status.

    Raises:
        SegpipeError: if the checkpoint or its cases cannot be used, or its network has no skip that could be replaced.
    """
    (run,) = open_runs(options)
    skips = skip_inputs(run.trained.network)
    cases = find_cases(options, run.trained)
    if "shuffle" in options.lesions and len(cases) < 2:
        raise ConfigError(
            f"lesions: shuffle needs two cases, there is {len(cases)}: name more, or leave it out"
        )
    folder = output_folder(options, "lesion")
    with progress_bar() as bar:
        steps = len(cases) * (1 + len(skips) * len(options.lesions))
        scoring = bar.add_task("scoring", total=steps, note="")
        intact, means = whole(
            run, cases, skips, options.nsd_tolerance_mm, lambda: bar.advance(scoring)
        )
        skips = sorted(skips, key=lambda skip: -np.prod(means[skip.name].size))
        rows, losses = _rows("", INTACT, intact, intact), []
        for skip in skips:
            for kind in options.lesions:
                found = []
                for number, case in enumerate(cases):
                    other = cases[(number + 1) % len(cases)]
                    found += without(
                        run, case, other, skip, kind, means[skip.name], options.nsd_tolerance_mm
                    )
                    bar.advance(scoring)
                rows += (of_one := _rows(skip.name, kind, found, intact))
                losses.append(_loss(skip, means[skip.name].size, kind, found, intact, of_one))
    write_rows(folder / "lesion.csv", rows)
    whole_dice, whole_nsd = summarise(intact)[-1].dice, summarise(intact)[-1].nsd
    title = f"{len(cases)} cases; whole network: Dice {whole_dice:.4f}, NSD {whole_nsd:.4f}"
    draw_lesions(losses, f"what is lost without a long skip ({title})", folder / "lesion.png")
    _show(losses, title)
    show_next([("drawn", folder / "lesion.png"), ("table", folder / "lesion.csv")])
    return 0


def whole(
    run: TrainedRun,
    cases: Sequence[Case],
    skips: Sequence[SkipInput],
    tolerance_mm: float,
    done: Callable[[], None] = lambda: None,
) -> tuple[list[Score], dict[str, Means]]:
    """Scores of the network as it is, and what came through its skips meanwhile."""
    means = {skip.name: Means() for skip in skips}
    handles = [skip.intercept(means[skip.name]) for skip in skips]
    scores = []
    try:
        for case in cases:
            scan, truth = read_case(case, run.plan)
            scores += _score(run.predictor, case, scan, truth, tolerance_mm)
            done()
    finally:
        for handle in handles:
            handle.remove()
    return scores, means


def without(
    run: TrainedRun,
    case: Case,
    other: Case,
    skip: SkipInput,
    kind: Kind,
    means: Means,
    tolerance_mm: float,
) -> list[Score]:
    """Scores of a case with one skip replaced; `other` is the case whose skip is taken in a shuffle."""
    scan, truth = read_case(case, run.plan)
    if kind != "shuffle":
        with replaced(skip, torch.zeros_like if kind == "zero" else means.instead):
            return _score(run.predictor, case, scan, truth, tolerance_mm)
    predictor = run.predictor.with_network(Shuffled(run.predictor.network, skip))
    # its field of view laid over the case's, middle on middle
    beside = ResizeWithPadOrCrop(scan.image.shape[1:], mode="edge")(
        read_case(other, run.plan)[0].image
    )
    both = replace(scan, image=torch.cat([scan.image, torch.as_tensor(beside).as_subclass(Tensor)]))
    return _score(predictor, case, both, truth, tolerance_mm)


def _score(
    predictor: Predictor, case: Case, scan: PreparedScan, truth: np.ndarray, tolerance_mm: float
) -> list[Score]:
    found = predictor.segment(scan)
    return score_case(
        case.name, found.labels, truth, found.grid.spacing_mm, predictor.plan.targets, tolerance_mm
    )


def _rows(
    skip: str, kind: str, found: Sequence[Score], intact: Sequence[Score]
) -> list[LesionScore]:
    return [
        LesionScore(
            skip,
            kind,
            now.case,
            now.label,
            now.dice,
            now.nsd,
            was.dice - now.dice,
            was.nsd - now.nsd,
        )
        for now, was in zip(found, intact, strict=True)
    ]


def _loss(
    skip: SkipInput,
    size: Sequence[int],
    kind: str,
    found: Sequence[Score],
    intact: Sequence[Score],
    rows: Sequence[LesionScore],
) -> Loss:
    now, was = summarise(found)[-1], summarise(intact)[-1]
    cases = list(dict.fromkeys(row.case for row in rows))
    per_case = [
        [np.mean(known) if (known := _known(rows, case, which)) else np.nan for case in cases]
        for which in ("dice_lost", "nsd_lost")
    ]
    return Loss(
        skip.name, tuple(size), kind, was.dice - now.dice, was.nsd - now.nsd, np.array(per_case)
    )


def _known(rows: Sequence[LesionScore], case: str, which: str) -> list[float]:
    values = [float(getattr(row, which)) for row in rows if row.case == case]
    return [value for value in values if not np.isnan(value)]


def _show(losses: Sequence[Loss], title: str) -> None:
    rows = [
        [
            loss.skip,
            "x".join(map(str, loss.size)),
            loss.lesion,
            *(
                f"{value:+.4f}"
                for value in (
                    loss.dice,
                    loss.nsd,
                    np.nanmax(loss.cases[0]),
                    np.nanmax(loss.cases[1]),
                )
            ),
        ]
        for loss in losses
    ]
    columns = [
        "long skip",
        "size",
        "replaced by",
        "Dice lost",
        "NSD lost",
        "Dice, worst case",
        "NSD, worst case",
    ]
    show_table(title, columns, rows)
