"""Pictures for `doctor.html`: labels over the scans of some cases, those with findings first."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from segpipe.data.cases import MOST_LABELS
from segpipe.data.inspected_case import SEVERITY, InspectedCase
from segpipe.errors import DataError
from segpipe.geometry import Grid
from segpipe.io.label_maps import load_label_of
from segpipe.io.notes import collecting_notes
from segpipe.io.volumes import load, read
from segpipe.reporting.pictures import draw_overlay
from segpipe.text import unwritable
from segpipe.units import UnitName

FLAGGED = 0.75  # share of the pictures for cases with findings, where others are left


def choose_cases(cases: Sequence[InspectedCase], most: int) -> list[InspectedCase]:
    """Return cases to be drawn: those with findings, the worst first, then some of the others.

    Each kind of finding has its turn, so that one of many cases does not hide the others. The other
    cases lie evenly between the one with the smallest labels and the one with the largest.

    Args:
        cases: the cases of the dataset.
        most: number of cases.
    """
    flagged = _in_turns([case for case in cases if case.findings])
    clean = sorted((case for case in cases if not case.findings), key=_labelled_ml)
    kept = flagged[: max(round(FLAGGED * most), most - len(clean))]
    number = min(len(clean), most - len(kept))
    positions = np.linspace(0, len(clean) - 1, number).round().astype(int).tolist()
    kept.sort(key=_worst)
    return [*kept, *map(clean.__getitem__, positions)]


def _in_turns(cases: Sequence[InspectedCase]) -> list[InspectedCase]:
    """Return cases with findings so that the first of each kind come first, and so on."""
    seen: dict[int, int] = {}
    turns: list[tuple[int, int]] = []
    for case in cases:
        kind = _worst(case)
        seen[kind] = seen.get(kind, 0) + 1
        turns.append((seen[kind], kind))
    order = sorted(range(len(cases)), key=turns.__getitem__)
    return list(map(cases.__getitem__, order))


def _worst(case: InspectedCase) -> int:
    """Return the rank of a case's worst finding."""
    kinds = list(SEVERITY)
    return min(kinds.index(finding.kind) for finding in case.findings)


def _labelled_ml(case: InspectedCase) -> float:
    """Return the volume of all labels of a case, mL."""
    assert case.grid is not None
    return float(case.sizes[:, 1].sum()) * case.grid.voxel_ml


def draw_case(
    inspected: InspectedCase, labels: Mapping[str, int], picture: Path, unit: UnitName
) -> bool:
    """Draw the labels of a case over its scan; return whether the scan can be read.

    Ids that are not declared are drawn too. A label map that is not on the scan's grid, or holds no
    ids, is left out.

    Args:
        inspected: the case.
        labels: name -> id on disk.
        picture: PNG to write.
        unit: the unit of the dataset.
    """
    case = inspected.case
    if unwritable(case.name) or "/" in case.name or "\\" in case.name:
        return False
    try:
        with collecting_notes():  # which are findings of this case already
            scan = read(case.images, partial(load, nan="fill"))
    except DataError:  # which is a finding of this case already
        return False
    grid = Grid.of(scan)
    voxels = scan.as_tensor()
    image = (voxels[0] if len(voxels) == 1 else voxels.float().mean(0)).numpy()
    names = dict(labels)
    label = _read_label(inspected, grid, names)
    shown = grid.ras_view(image[None])[0]
    drawn = grid.ras_view(label[None])[0]
    known = [name for name, number in names.items() if number]
    draw_overlay(shown, drawn, None, grid.ras_spacing_mm, known, "", picture, in_mm=unit == "mm")
    return True


def _read_label(inspected: InspectedCase, grid: Grid, names: dict[str, int]) -> np.ndarray:
    """Return the index of each voxel's label, and add ids that are not declared to the names."""
    case = inspected.case
    nothing = np.zeros(grid.shape, np.uint8)
    if case.label is None:
        return nothing
    try:
        with collecting_notes():
            label = load_label_of(case.label, grid, case.images[0], names or None).numpy()[0]
    except DataError:  # which is a finding of this case already
        return nothing
    ids = np.unique(label)
    is_drawn = label.shape == tuple(grid.shape) and len(ids) <= MOST_LABELS
    if not is_drawn or (ids != ids.round()).any():
        return nothing
    for number in ids.astype(int).tolist():
        if number and number not in names.values():
            names[f"id {number}, not declared"] = number
    indices = nothing
    known = [number for number in names.values() if number]
    for index, number in enumerate(known[:MOST_LABELS], start=1):
        indices[label == number] = index
    return indices
