"""The viewer of a folder of masks: scans, masks and truths whose files are still there."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from segpipe.config.predict import Predict
from segpipe.errors import SegpipeError
from segpipe.io.volumes import load, read
from segpipe.prediction.records import ScanRecord, label_names
from segpipe.reporting.viewer import Viewer, ViewerBudget, ViewerCase, make_viewer, viewer_case
from segpipe.terminal import progress_bar

log = logging.getLogger("segpipe")


def viewer_of(folder: Path, done: Sequence[ScanRecord], options: Predict) -> Viewer | None:
    """Return a viewer of the scans and masks whose files are still there.

    They are in the order of the table, as many as there is room for.
    """
    budget = ViewerBudget(options.page.viewer_mib)
    shown = [record for record in done if record.ids]
    labels = label_names(shown)
    with progress_bar() as bar:
        task = bar.add_task("volumes for the viewer", total=len(shown), note="")
        for rank, record in enumerate(shown):
            try:
                case = _viewer_case(folder, record, labels)
            except SegpipeError as error:
                log.warning("%s: is not in the viewer: %s", record.name, error)
                case = None
            if case is not None:
                budget.add(float(rank), case)
            bar.advance(task)
    return make_viewer(budget, labels)


def _viewer_case(folder: Path, record: ScanRecord, labels: Sequence[str]) -> ViewerCase | None:
    """Return a scan, its mask, and the truth it was scored against; ids are indices of `labels`.

    Raises:
        SegpipeError: if a file is gone, or cannot be read.
    """
    scan = record.scan
    indices = np.zeros(max(record.ids, default=0) + 2, np.uint8)  # of labels, by id on disk
    for number, name in zip(record.ids, record.labels, strict=True):
        indices[number] = labels.index(name) + 1
    image = read(scan.images, partial(load, nan="fill"))
    mask = _read_mask(folder / scan.mask_name, indices)
    truth = None
    if record.truth and record.scores:
        truth = _read_mask(Path(record.truth), indices)
    affine = np.asarray(image.affine, dtype=float)
    voxels = image.as_tensor().float().mean(0).numpy()
    return viewer_case(record.name, voxels, mask, truth, affine)


def _read_mask(path: Path, indices: np.ndarray) -> np.ndarray:
    """Return a label map whose ids are replaced; larger ids count as background."""
    ids = np.clip(read([path]).numpy()[0], 0, len(indices) - 1)
    return indices[ids.astype(int)]
