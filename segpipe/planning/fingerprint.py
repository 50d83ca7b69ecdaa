"""The fingerprint of the training cases, from what the doctor saw of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.data.inspection import InspectedCase
from segpipe.errors import DataError

BINS = 60  # of a histogram


@dataclass(frozen=True)
class LabelSize:
    """How large a label is, over the cases that have it.

    Attributes:
        cases: that have it.
        share: of all their voxels.
        parts: connected parts in a case, the median.
        part_ml: size of a case's largest part, the median, in mL.
    """

    cases: int
    share: float
    parts: float
    part_ml: float


@dataclass(frozen=True)
class Fingerprint:
    """What the training cases have in common.

    Attributes:
        spacings_mm: (cases, 3) voxel sizes along left-right, back-front, foot-head.
        shapes: (cases, 3) voxels along the same axes.
        boxes: (cases, 3) of them those of the smallest box that holds all that is not 0.
        void: per channel the share of voxels that are exactly 0, the median of the cases.
        foreground: per channel the 0.5 and 99.5 percentiles, mean and standard deviation of labelled voxels.
        labels: id on disk -> how the label looks; without the background.
    """

    spacings_mm: np.ndarray
    shapes: np.ndarray
    boxes: np.ndarray
    zero_fraction: list[float]
    foreground: list[tuple[float, float, float, float]]
    labels: dict[int, LabelSize]


@dataclass(frozen=True)
class CaseFacts:
    """One case.

    Attributes:
        name: of the case.
        part: `train` or `val`.
        shape: voxels along left-right, back-front and foot-head.
        spacing_mm: voxel size along the same axes.
        volumes_ml: of each label; 0 where it is not there.
    """

    name: str
    part: str
    shape: Sequence[int]
    spacing_mm: Sequence[float]
    volumes_ml: dict[str, float]


@dataclass(frozen=True)
class Intensities:
    """A histogram of the labelled voxels of the cases that train.

    Attributes:
        channel: its name.
        edges: of the bins, one more than there are counts.
        counts: of a sample of voxels.
    """

    channel: str
    edges: Sequence[float]
    counts: Sequence[int]


@dataclass(frozen=True)
class Facts:
    """All cases of a run.

    Attributes:
        cases: those that train, then those that validate.
        intensities: a histogram per channel.
    """

    cases: Sequence[CaseFacts]
    intensities: Sequence[Intensities]


def fingerprint(train: Sequence[InspectedCase]) -> Fingerprint:
    """Grids and intensities of training cases without an error."""
    grids = [seen.grid for seen in train if seen.grid is not None]
    boxes = [seen.box[list(seen.grid.axes[0])] for seen in train if seen.grid is not None]
    voxels = np.concatenate([seen.foreground for seen in train], axis=1)
    return Fingerprint(
        spacings_mm=np.array([grid.ras_spacing_mm for grid in grids]),
        shapes=np.array([grid.ras_shape for grid in grids]),
        boxes=np.array(boxes),
        zero_fraction=[
            float(share) for share in np.median([seen.zero_fraction for seen in train], axis=0)
        ],
        foreground=[_statistics(channel) for channel in voxels],
        labels=_label_sizes(train),
    )


def facts(
    train: Sequence[InspectedCase],
    val: Sequence[InspectedCase],
    labels: dict[str, int],
    channels: Sequence[str],
) -> Facts:
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
    return Facts(
        cases, [_intensities(name, channel) for name, channel in zip(channels, voxels, strict=True)]
    )


def _case_facts(seen: InspectedCase, part: str, labels: dict[str, int]) -> CaseFacts:
    assert seen.grid is not None
    millilitres = {
        int(number): float(voxels) * seen.grid.voxel_ml for number, voxels, _, _ in seen.sizes
    }
    volumes = {name: millilitres.get(number, 0.0) for name, number in labels.items() if number}
    return CaseFacts(
        seen.case.name, part, list(seen.grid.ras_shape), list(seen.grid.ras_spacing_mm), volumes
    )


def _intensities(channel: str, voxels: np.ndarray) -> Intensities:
    low, high = np.percentile(voxels, [0.1, 99.9])
    counts, edges = np.histogram(voxels, BINS, (float(low), max(float(high), float(low) + 1e-6)))
    return Intensities(channel, [float(edge) for edge in edges], [int(count) for count in counts])


def content_of(cases: Sequence[InspectedCase]) -> str:
    """A name for the voxels, labels and places of these cases, in whatever order and files they come."""
    rows = [
        json.dumps(
            [seen.content, seen.label_content, seen.grid and np.round(seen.grid.affine, 4).tolist()]
        )
        for seen in cases
    ]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:32]


def _label_sizes(cases: Sequence[InspectedCase]) -> dict[int, LabelSize]:
    found: dict[int, list[tuple[float, float, float]]] = {}
    for seen in cases:
        if seen.grid is None:
            continue
        for number, voxels, parts, largest in seen.sizes:
            share = voxels / np.prod(seen.grid.shape)
            found.setdefault(int(number), []).append((share, parts, largest * seen.grid.voxel_ml))
    return {
        number: LabelSize(
            len(rows), float(np.mean(rows, axis=0)[0]), *map(float, np.median(rows, axis=0)[1:])
        )
        for number, rows in found.items()
    }


def label_ids(cases: Sequence[InspectedCase], declared: dict[str, int] | None) -> dict[str, int]:
    """The label ids: name -> id, as declared, or those that were found, named after their numbers.

    Raises:
        DataError: if no voxel is labelled.
    """
    ids = sorted({0} | {int(value) for seen in cases for value in seen.ids})
    if len(ids) < 2:
        raise DataError(
            f"{cases[0].case.label}: no voxel of any of the {len(cases)} label maps is labelled; all are 0"
        )
    return declared or {"background": 0} | {f"label {value}": value for value in ids if value}


def _statistics(voxels: np.ndarray) -> tuple[float, float, float, float]:
    low, high = np.percentile(voxels, [0.5, 99.5])
    return float(low), float(high), float(voxels.mean()), float(voxels.std())
