"""Predictions for people: a picture of each, the viewer of volumes, scores and verdict."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.metrics import IGNORED, Score, metrics_of, summarise
from segpipe.prediction.predictor import Prediction
from segpipe.reporting.viewer import ViewerBudget, viewer_case
from segpipe.terminal import show_table
from segpipe.text import decimal
from segpipe.units import UnitName, Units
from segpipe.verdict import Colour, Judgement

log = logging.getLogger("segpipe")
STYLES: dict[Colour, str] = {"good": "bold green", "weak": "bold yellow", "bad": "bold red"}


def draw_prediction(
    prediction: Prediction,
    truth: np.ndarray | None,
    names: Sequence[str],
    title: str,
    picture: Path,
    unit: UnitName = "mm",
) -> None:
    """Draw a mask over its scan, and the truth where it is known, along the patient's axes.

    Args:
        prediction: the prediction of the scan.
        truth: label indices on the scan's grid, `(x, y, z)`; None where it is not known.
        names: the names of the labels without the background.
        title: the title of the picture; empty where a page names the case.
        picture: PNG to write.
        unit: the unit of the scan.
    """
    # matplotlib takes longer to import than a small scan to segment
    from segpipe.reporting.pictures import draw_overlay

    grid = prediction.grid
    image = grid.ras_view(_display_volume(prediction)[None])[0]
    labels = grid.ras_view(prediction.labels[None])[0]
    known = _without_ignored(truth)
    expected = None if known is None else grid.ras_view(known[None])[0]
    draw_overlay(
        image, labels, expected, grid.ras_spacing_mm, list(names), title, picture, unit == "mm"
    )


def _display_volume(prediction: Prediction) -> np.ndarray:
    """Return the mean of the scan's channels, `(x, y, z)` in the scan's own order of axes."""
    volume = prediction.scan.native.as_tensor()
    return (volume[0] if len(volume) == 1 else volume.float().mean(0)).numpy()


def _without_ignored(truth: np.ndarray | None) -> np.ndarray | None:
    return None if truth is None else np.where(truth == IGNORED, 0, truth)


def add_to_viewer(
    viewer: ViewerBudget, name: str, prediction: Prediction, truth: np.ndarray | None, rank: float
) -> None:
    """Add a scan with its mask, and the truth where it is known, to the viewer of a page.

    Args:
        viewer: the viewer of the page.
        name: the name of the case.
        prediction: the prediction of the scan.
        truth: label indices on the scan's grid, `(x, y, z)`; None where it is not known.
        rank: cases with the lowest rank are kept where there is not room for all.
    """
    volume = _display_volume(prediction)
    affine = prediction.grid.affine
    case = viewer_case(name, volume, prediction.labels, _without_ignored(truth), affine)
    if case is not None:
        viewer.add(rank, case)


def show_scores(scores: Sequence[Score], title: str, units: Units) -> None:
    """Print the mean of each metric per target, with the number of misses and false alarms."""
    metrics = metrics_of("summary", scores)
    headings = [units.in_text(metric.heading) for metric in metrics.values()]
    rows: list[list[str]] = []
    for line in summarise(scores):
        row = [line.label]
        for name, metric in metrics.items():
            row.append(decimal(getattr(line, name), metric.digits))
        rows.append([*row, str(line.misses), str(line.false_alarms)])
    show_table(title, ["label", *headings, "misses", "false alarms"], rows)


def show_verdict(verdict: Judgement) -> None:
    """Log a verdict in its colour, and what to do next."""
    style = STYLES[verdict.colour]
    level = logging.INFO if verdict.level == "works" else logging.WARNING
    log.log(level, "%s", verdict.sentence, extra={"style": style})
    for advice in verdict.advice:
        log.info("- %s", advice)
