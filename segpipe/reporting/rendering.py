"""Predictions as a person looks at them: a picture of each, a table of all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.metrics import IGNORED, Score, summarise
from segpipe.prediction.predictor import Prediction
from segpipe.reporting.viewer import ViewerBudget, viewer_case
from segpipe.terminal import show_table


def draw_prediction(
    prediction: Prediction,
    truth: np.ndarray | None,
    names: Sequence[str],
    title: str,
    picture: Path,
) -> None:
    """A picture of a mask over its scan, and of the truth where it is known, in the patient's own axes."""
    from segpipe.reporting.pictures import (
        draw_overlay,  # matplotlib takes longer to import than a small scan to segment
    )

    grid = prediction.grid
    known = None if truth is None else np.where(truth == IGNORED, 0, truth)
    image, labels, expected = (
        None if volume is None else grid.ras_view(volume[None])[0]
        for volume in (_seen(prediction), prediction.labels, known)
    )
    assert image is not None
    assert labels is not None
    draw_overlay(image, labels, expected, grid.ras_spacing_mm, list(names), title, picture)


def _seen(prediction: Prediction) -> np.ndarray:
    """The scan as a person looks at it: the mean of its channels, `(x, y, z)` in its own order."""
    volume = prediction.scan.native.as_tensor()
    return (volume[0] if len(volume) == 1 else volume.float().mean(0)).numpy()


def add_to_viewer(
    shelf: ViewerBudget, name: str, prediction: Prediction, truth: np.ndarray | None, rank: float
) -> None:
    """Puts a scan with its mask, and the truth where it is known, on the shelf of a page's viewer.

    Args:
        shelf: of the viewer.
        name: of the case.
        prediction: of it.
        truth: ids inside, on the scan's grid; None where it is not known.
        rank: the lowest stay longest.
    """
    known = None if truth is None else np.where(truth == IGNORED, 0, truth)
    case = viewer_case(name, _seen(prediction), prediction.labels, known, prediction.grid.affine)
    if case is not None:
        shelf.add(rank, case)


def show_scores(scores: Sequence[Score], title: str) -> None:
    """Prints Dice, HD95 and NSD per label, with the masks that are missing or should be."""
    rows = [
        [
            line.label,
            f"{line.dice:.4f}",
            f"{line.hd95_mm:.2f}",
            f"{line.nsd:.4f}",
            str(line.misses),
            str(line.false_alarms),
        ]
        for line in summarise(scores)
    ]
    show_table(title, ["label", "Dice", "HD95 mm", "NSD 1 mm", "misses", "false alarms"], rows)
