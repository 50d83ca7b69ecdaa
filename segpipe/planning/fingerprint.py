"""The fingerprint of the training cases, and the facts of a run's page, from inspected cases."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from segpipe.data.inspected_case import InspectedCase
from segpipe.errors import DataError
from segpipe.io.volumes import shown_unit
from segpipe.units import UnitName

BINS = 60  # of a histogram
LARGEST = 1e18  # intensity whose square float32 can hold
DECIMALS = 4  # of an affine, in mm, that name the geometry of a case


@dataclass(frozen=True)
class LabelSize:
    """How large a label is, over the cases that have it.

    Attributes:
        cases: number of cases that have it.
        fraction: mean over those cases of its fraction of all voxels.
        parts: median number of connected parts in a case.
        part_ml: median size of a case's largest part, in mL.
        spread: median of the label's size in a case as a multiple of its largest part: 1 where it
            is in one piece, even with specks beside it.
    """

    cases: int
    fraction: float
    parts: float
    part_ml: float
    spread: float


@dataclass(frozen=True)
class Fingerprint:
    """What the training cases have in common.

    Attributes:
        spacings_mm: `(cases, 3)`, voxel sizes along left-right, back-front, foot-head.
        shapes: `(cases, 3)`, voxels along the same axes.
        boxes: `(cases, 3)`, voxels of the smallest box that holds all that is not 0.
        zero_fraction: the fraction of voxels that are exactly 0, per channel, median of the cases.
        foreground: the 0.5 and 99.5 percentiles, mean and standard deviation of the labelled
            voxels, per channel.
        labels: id on disk -> size of the label; without the background.
        ceilings: Dice that a perfect network would have at each of `ceiling.FACTORS` times the
            finest spacing, mean of the labels; empty: not known.
        directions: `(cases, 3, 3)`, unit vectors in RAS+, one a column, of the scan's axes that are
            nearest to left-right, back-front and foot-head; None: exactly those.
        unit: the unit in which lengths and volumes of these cases are shown.
    """

    spacings_mm: np.ndarray
    shapes: np.ndarray
    boxes: np.ndarray
    zero_fraction: list[float]
    foreground: list[tuple[float, float, float, float]]
    labels: dict[int, LabelSize]
    ceilings: Sequence[float] = ()
    directions: np.ndarray | None = None
    unit: UnitName = "mm"


@dataclass(frozen=True)
class CaseFacts:
    """Grid and label volumes of one case.

    Attributes:
        name: the name of the case.
        part: `train` or `val`.
        shape: voxels along left-right, back-front and foot-head.
        spacing_mm: voxel size along the same axes.
        volumes_ml: volume of each label; 0 where it is absent.
    """

    name: str
    part: str
    shape: Sequence[int]
    spacing_mm: Sequence[float]
    volumes_ml: dict[str, float]


@dataclass(frozen=True)
class Intensities:
    """A histogram of the labelled voxels of the training cases.

    Attributes:
        channel: its name.
        edges: the edges of the bins, one more than there are counts.
        counts: the counts of a sample of voxels.
    """

    channel: str
    edges: Sequence[float]
    counts: Sequence[int]


@dataclass(frozen=True)
class Facts:
    """All cases of a run.

    Attributes:
        cases: training cases, then validation cases.
        intensities: a histogram per channel.
    """

    cases: Sequence[CaseFacts]
    intensities: Sequence[Intensities]


def fingerprint(train: Sequence[InspectedCase]) -> Fingerprint:
    """Return the fingerprint of training cases without an error."""
    spacings = []
    shapes = []
    boxes = []
    directions = []
    for case in train:
        if case.grid is not None:
            spacings.append(case.grid.ras_spacing_mm)
            shapes.append(case.grid.ras_shape)
            boxes.append(case.grid.ras.along(case.box.tolist()))
            directions.append(case.grid.ras_directions)
    zero_fraction = np.median([case.zero_fraction for case in train], axis=0)
    return Fingerprint(
        spacings_mm=np.array(spacings),
        shapes=np.array(shapes),
        boxes=np.array(boxes),
        zero_fraction=zero_fraction.tolist(),
        foreground=list(map(_statistics, _foreground(train))),
        labels=_label_sizes(train),
        ceilings=_ceilings(train),
        directions=np.array(directions),
        unit=shared_unit(train),
    )


def shared_unit(cases: Sequence[InspectedCase]) -> UnitName:
    """Return the unit in which lengths of the cases are shown: pixels where none has mm."""
    units: set[UnitName] = set()
    for case in cases:
        if case.grid is not None:
            units.add(shown_unit(case.case.images[0]))
    if len(units) == 1:
        return units.pop()
    return "px3" if units == {"px2", "px3"} else "mm"


def facts(
    train: Sequence[InspectedCase],
    val: Sequence[InspectedCase],
    labels: dict[str, int],
    channels: Sequence[str],
) -> Facts:
    """Return what the run's page shows of the cases.

    Args:
        train: training cases, whose labelled voxels make the histograms.
        val: validation cases.
        labels: name -> id on disk.
        channels: names of the image channels.
    """
    cases = [*_part_facts(train, "train", labels), *_part_facts(val, "val", labels)]
    return Facts(cases, list(map(_intensities, channels, _foreground(train))))


def label_ids(
    cases: Sequence[InspectedCase],
    declared: dict[str, int] | None,
    names: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, int]:
    """Return name -> id on disk of the labels, as declared or else as found in the cases.

    Args:
        cases: the cases as they were inspected.
        declared: name -> id; None where nothing is declared.
        names: id -> name of ids that are found; others are called by their number.

    Raises:
        DataError: if no voxel is labelled.
    """
    ids = {0}
    for case in cases:
        ids.update(map(int, case.ids))
    if ids == {0}:
        raise DataError(
            f"{cases[0].case.label}: no voxel of any of the {len(cases)} label maps is labelled; "
            "all are 0"
        )
    if declared:
        return declared
    found = {"background": 0}
    for number in sorted(ids - {0}):
        name = names.get(number, f"label {number}")
        found[name if name not in found else f"{name} {number}"] = number
    return found


def content_row(case: InspectedCase) -> str:
    """Return the hashes of a case's voxels and labels with its geometry, in one line."""
    affine = case.grid and np.round(case.grid.affine, DECIMALS).tolist()
    return json.dumps([case.content, case.label_content, affine])


def content_of(cases: Sequence[InspectedCase]) -> str:
    """Return a hash of voxels, labels and geometry of these cases, whatever their order."""
    rows = sorted(map(content_row, cases))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]


def _foreground(cases: Sequence[InspectedCase]) -> Float[np.ndarray, "channels voxels"]:
    """Return the labelled voxels of all cases."""
    return np.concatenate([case.foreground for case in cases], axis=1)


def _part_facts(
    cases: Iterable[InspectedCase], part: str, labels: dict[str, int]
) -> list[CaseFacts]:
    rows = []
    for case in cases:
        grid = case.grid
        if grid is None:
            continue
        volumes = dict.fromkeys(list(labels)[1:], 0.0)  # without the background
        voxels_of = {int(number): float(voxels) for number, voxels, *_ in case.sizes}
        for name in volumes:
            volumes[name] = voxels_of.get(labels[name], 0.0) * grid.voxel_ml
        shape = list(grid.ras_shape)
        rows.append(CaseFacts(case.case.name, part, shape, list(grid.ras_spacing_mm), volumes))
    return rows


def _intensities(channel: str, voxels: Float[np.ndarray, " voxels"]) -> Intensities:
    """Return the histogram of a channel, without the darkest and brightest 0.1 %."""
    low, high = np.percentile(voxels, [0.1, 99.9])
    widest = (float(low), max(float(high), float(low) + 1e-6))
    counts, edges = np.histogram(voxels, BINS, widest)
    return Intensities(channel, edges.tolist(), counts.tolist())


def _label_sizes(cases: Sequence[InspectedCase]) -> dict[int, LabelSize]:
    """Return the size of each label, id on disk -> size."""
    rows: dict[int, list[list[float]]] = {}
    for case in cases:
        if case.grid is None:
            continue
        for number, voxels, parts, largest in case.sizes:
            fraction = voxels / np.prod(case.grid.shape)
            row = [fraction, parts, largest * case.grid.voxel_ml, voxels / largest]
            rows.setdefault(int(number), []).append(row)
    sizes = {}
    for number, measured in rows.items():
        fraction = float(np.mean(measured, axis=0)[0])
        _, parts, part_ml, spread = np.median(measured, axis=0).tolist()
        sizes[number] = LabelSize(len(measured), fraction, parts, part_ml, spread)
    return sizes


def _ceilings(cases: Sequence[InspectedCase]) -> list[float]:
    """Return for each coarser grid the mean over labels of the mean over cases."""
    rows: dict[int, list[np.ndarray]] = {}
    for case in cases:
        for (number, *_), measured in zip(case.sizes, case.ceilings, strict=True):
            rows.setdefault(int(number), []).append(measured)
    means = [np.mean(measured, axis=0) for measured in rows.values()]
    return np.mean(means, axis=0).tolist() if means else []


def _statistics(voxels: Float[np.ndarray, " voxels"]) -> tuple[float, float, float, float]:
    """Return the 0.5 and 99.5 percentiles, mean and standard deviation."""
    low, high = np.percentile(voxels, [0.5, 99.5])
    if np.abs(voxels).max(initial=0) > LARGEST:  # whose square overflows: a wrong voxel or two
        voxels = voxels.clip(low, high).astype(np.float64)
    return float(low), float(high), float(voxels.mean()), float(voxels.std())
