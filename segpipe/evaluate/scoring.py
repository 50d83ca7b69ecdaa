"""One mask against its truth: read, checked, scored and drawn."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from segpipe import extensions
from segpipe.config.scoring import Scoring
from segpipe.device import count_cores
from segpipe.evaluate.labels import Indexed, Scheme, to_indices
from segpipe.evaluate.pairing import Pair
from segpipe.geometry import Grid, Volume, check_same_grid
from segpipe.io.content import content_files
from segpipe.io.label_maps import lies_on_scan, load_label_of
from segpipe.io.notes import collecting
from segpipe.io.volumes import load, load_label, shown_unit
from segpipe.metrics import IGNORED, Score, score_case
from segpipe.prediction.reasons import one_line
from segpipe.reporting.formats import in_use, use
from segpipe.units import UnitName

log = logging.getLogger("segpipe")
CASES_PER_WORKER = 8  # fewer are scored before another process has started
KILLED = "the process that scored it was killed; was there too little memory?"


@dataclass(frozen=True)
class Settings:
    """How each case is scored.

    Attributes:
        scheme: what is scored.
        scoring: which metrics are measured, and how.
        overlays: folder for the pictures; None where none are drawn.
    """

    scheme: Scheme
    scoring: Scoring
    overlays: Path | None


@dataclass
class CaseResult:
    """What became of one case.

    Attributes:
        pair: mask and truth.
        reason: the reason why it was refused; empty where it is scored.
        warnings: what is worth a look, though it is scored.
        scores: one per target.
        unit: the unit in which its lengths and volumes are shown.
        drawn: whether there is a picture of it.
    """

    pair: Pair
    reason: str = ""
    warnings: list[str] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    unit: UnitName = "mm"
    drawn: bool = False

    @property
    def name(self) -> str:
        """Return the name of the case."""
        return self.pair.name


def score_pairs(
    pairs: Sequence[Pair], settings: Settings, workers: int | None, named: Sequence[str]
) -> Iterator[CaseResult]:
    """Yield the result of each pair, in their order; each worker holds one case in memory.

    Args:
        pairs: the pairs to score.
        settings: the settings of all pairs.
        workers: processes; None: as many as cores, where there are cases enough.
        named: extensions that define metrics.
    """
    if workers is None:
        workers = max(1, min(count_cores(), len(pairs) // CASES_PER_WORKER))
    if workers == 1:
        for pair in pairs:
            yield score_pair(pair, settings)
        return
    pool = _pool(workers, named)
    try:
        waiting = [pool.submit(score_pair, pair, settings) for pair in pairs]
        for pair, future in zip(pairs, waiting, strict=True):
            yield _result(pair, future, settings, named)
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int, named: Sequence[str]) -> ProcessPoolExecutor:
    # a fork would copy the threads' locks of this process
    start = (list(named), in_use())
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, start)


def _start_worker(named: list[str], formats: list[str]) -> None:
    torch.set_num_threads(1)
    use(formats)
    extensions.load(named)


def _result(
    pair: Pair, future: Future[CaseResult], settings: Settings, named: Sequence[str]
) -> CaseResult:
    """Return the result of a pair; where its process was killed, try it once more alone."""
    try:
        return future.result()
    except BrokenProcessPool:  # any of those that ran then may be the cause
        with _pool(1, named) as alone:
            try:
                return alone.submit(score_pair, pair, settings).result()
            except BrokenProcessPool:
                return CaseResult(pair, f"{pair.prediction}: {KILLED}")


def score_pair(pair: Pair, settings: Settings) -> CaseResult:
    """Return the scores of a mask; whatever is wrong with it is the reason of the result."""
    result = CaseResult(pair, pair.problem)
    if pair.problem:
        return result
    assert pair.truth is not None
    try:
        with collecting() as result.warnings:
            _score(result, settings)
    except Exception as error:  # whatever is wrong with this case, the others can be scored
        log.debug("%s failed", pair.name, exc_info=error)
        result.reason = one_line(pair.prediction or pair.truth, error)
    return result


def _score(result: CaseResult, settings: Settings) -> None:
    """Read, score and draw a case."""
    pair = result.pair
    prediction, truth = read_pair(pair)
    grid = Grid.of(truth)
    assert pair.truth is not None
    shown = pair.prediction if lies_on_scan(pair.truth) else pair.truth
    result.unit = "mm" if shown is None else shown_unit(shown)
    masks = to_indices(prediction.numpy()[0], truth.numpy()[0], settings.scheme)
    result.warnings += masks.warnings
    if masks.targets:
        result.scores = score_case(
            pair.name,
            masks.prediction,
            masks.truth,
            grid.spacing_mm,
            masks.targets,
            settings.scoring,
        )
    if settings.overlays is not None:
        image = _image(result, grid)
        draw_masks(masks, image, grid, result, settings.overlays / f"{pair.name}.png")
        result.drawn = True


def read_pair(pair: Pair) -> tuple[Volume, Volume]:
    """Read mask and truth, `(1, x, y, z)` on one grid; a mask that is missing is empty.

    A DICOM segmentation takes the grid of the other.

    Raises:
        DataError: if one cannot be read, or they do not lie on one grid.
    """
    assert pair.truth is not None
    content_files([pair.truth])  # raises where reading would never end
    if pair.prediction is None:
        truth = load_label(pair.truth)
        return Volume(torch.zeros_like(truth.voxels), truth.affine), truth
    content_files([pair.prediction])
    if lies_on_scan(pair.truth):
        prediction = load_label(pair.prediction)
        truth = load_label_of(pair.truth, Grid.of(prediction), pair.prediction)
    else:
        truth = load_label(pair.truth)
        prediction = load_label_of(pair.prediction, Grid.of(truth), pair.truth)
    check_same_grid(pair.truth, Grid.of(truth), pair.prediction, Grid.of(prediction))
    return prediction, truth


def _image(result: CaseResult, grid: Grid) -> np.ndarray:
    """Return the scan `(x, y, z)`, the mean of its channels; black where there is none to show."""
    pair = result.pair
    if pair.image is not None:
        assert pair.truth is not None
        try:
            content_files([pair.image])
            scan = load(pair.image, nan="fill")
            check_same_grid(pair.truth, grid, pair.image, Grid.of(scan))
            return scan.voxels.float().mean(0).numpy()
        except Exception as error:  # it is scored without a picture of the scan
            result.warnings.append(f"drawn without its scan: {one_line(pair.image, error)}")
    return np.zeros(grid.shape, dtype=np.float32)


def draw_masks(
    masks: Indexed, image: np.ndarray, grid: Grid, result: CaseResult, picture: Path
) -> None:
    """Draw a mask and its truth over a scan `(x, y, z)`, along the patient's axes."""
    from segpipe.reporting.pictures import draw_overlay  # matplotlib takes long to import

    truth = np.where(masks.truth == IGNORED, 0, masks.truth)
    draw_overlay(
        grid.ras_view(image[None])[0],
        grid.ras_view(masks.prediction[None])[0],
        grid.ras_view(truth[None])[0],
        grid.ras_spacing_mm,
        masks.names,
        "",
        picture,
        result.unit == "mm",
    )
