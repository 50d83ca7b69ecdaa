"""The fingerprint of the training cases, from what the doctor saw of them."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from segpipe.data.examine import Examined
from segpipe.errors import DataError
from segpipe.plan import Fingerprint, LabelSize
from segpipe.report.fingerprint import CaseFacts, Facts, Intensities

BINS = 60  # of a histogram


def fingerprint(train: Sequence[Examined]) -> Fingerprint:
    """Grids and intensities of training cases without an error."""
    grids = [seen.grid for seen in train if seen.grid is not None]
    boxes = [seen.box[list(seen.grid.axes[0])] for seen in train if seen.grid is not None]
    voxels = np.concatenate([seen.foreground for seen in train], axis=1)
    return Fingerprint(
        spacings_mm=np.array([grid.ras_spacing_mm for grid in grids]),
        shapes=np.array([grid.ras_shape for grid in grids]),
        boxes=np.array(boxes),
        void=[float(share) for share in np.median([seen.void for seen in train], axis=0)],
        foreground=[_statistics(channel) for channel in voxels],
        labels=_label_sizes(train),
    )


def facts(train: Sequence[Examined], val: Sequence[Examined], labels: dict[str, int], channels: Sequence[str]) -> Facts:
    """What the run's page shows of the cases.

    Args:
        train: cases that train, of whose labelled voxels the intensities are.
        val: cases that validate.
        labels: name -> id on disk.
        channels: names of the image channels.
    """
    parts = [*((seen, "train") for seen in train), *((seen, "val") for seen in val)]
    cases = [_case_facts(seen, part, labels) for seen, part in parts if seen.grid is not None]
    voxels = np.concatenate([seen.foreground for seen in train], axis=1)
    return Facts(cases, [_intensities(name, channel) for name, channel in zip(channels, voxels, strict=True)])


def _case_facts(seen: Examined, part: str, labels: dict[str, int]) -> CaseFacts:
    assert seen.grid is not None
    millilitres = {int(number): float(voxels) * seen.grid.voxel_ml for number, voxels, _, _ in seen.sizes}
    volumes = {name: millilitres.get(number, 0.0) for name, number in labels.items() if number}
    return CaseFacts(seen.case.name, part, list(seen.grid.ras_shape), list(seen.grid.ras_spacing_mm), volumes)


def _intensities(channel: str, voxels: np.ndarray) -> Intensities:
    low, high = np.percentile(voxels, [0.1, 99.9])
    counts, edges = np.histogram(voxels, BINS, (float(low), max(float(high), float(low) + 1e-6)))
    return Intensities(channel, [float(edge) for edge in edges], [int(count) for count in counts])


def content_of(cases: Sequence[Examined]) -> str:
    """A name for the voxels, labels and places of these cases, in whatever order and files they come."""
    rows = [
        json.dumps([seen.content, seen.label_content, seen.grid and np.round(seen.grid.affine, 4).tolist()])
        for seen in cases
    ]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:32]


def _label_sizes(cases: Sequence[Examined]) -> dict[int, LabelSize]:
    found: dict[int, list[tuple[float, float, float]]] = {}
    for seen in cases:
        if seen.grid is None:
            continue
        for number, voxels, parts, largest in seen.sizes:
            share = voxels / np.prod(seen.grid.shape)
            found.setdefault(int(number), []).append((share, parts, largest * seen.grid.voxel_ml))
    return {
        number: LabelSize(len(rows), float(np.mean(rows, axis=0)[0]), *map(float, np.median(rows, axis=0)[1:]))
        for number, rows in found.items()
    }


def label_ids(cases: Sequence[Examined], declared: dict[str, int] | None) -> dict[str, int]:
    """The label ids: name -> id, as declared, or those that were found, named after their numbers.

    Raises:
        DataError: if no voxel is labelled.
    """
    ids = sorted({0} | {int(value) for seen in cases for value in seen.ids})
    if len(ids) < 2:
        raise DataError(f"{cases[0].case.label}: no voxel of any of the {len(cases)} label maps is labelled; all are 0")
    return declared or {"background": 0} | {f"label {value}": value for value in ids if value}


def _statistics(voxels: np.ndarray) -> tuple[float, float, float, float]:
    low, high = np.percentile(voxels, [0.5, 99.5])
    return float(low), float(high), float(voxels.mean()), float(voxels.std())
