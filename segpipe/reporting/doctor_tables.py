"""The tables of `doctor.html`: findings, labels, grids and groups of a dataset."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segpipe.axes import AXES
from segpipe.data.cases import Case, Dataset, name_of
from segpipe.data.grouping import suggest_groups
from segpipe.data.inspected_case import SEVERITY, Finding, InspectedCase, usable_of
from segpipe.geometry import Grid
from segpipe.planning.metric_advice import advise
from segpipe.reporting.page import Cell, Column, Picture, Table
from segpipe.text import count, times
from segpipe.units import UNITS, UnitName, Units

ROWS = 300  # of a table: a page of more is slow to open and to sort
PARTS = {"train": "training", "val": "validation", "test": "test"}
WORST = list(SEVERITY)  # kinds of findings, the worst first


@dataclass(frozen=True)
class Examination:
    """A dataset as the doctor has read it.

    Attributes:
        dataset: the dataset of the cases.
        parts: the cases of `train`, `val` and `test`.
        findings: all of them.
        labels: name -> id on disk; empty where no voxel is labelled.
        unit: the unit of lengths and volumes.
        root: its folder.
    """

    dataset: Dataset
    parts: Mapping[str, Sequence[InspectedCase]]
    findings: Sequence[Finding]
    labels: Mapping[str, int] = field(default_factory=dict)
    unit: UnitName = "mm"
    root: Path | None = None

    @property
    def cases(self) -> list[InspectedCase]:
        """Return the cases of all parts."""
        cases: list[InspectedCase] = []
        for part in self.parts.values():
            cases += part
        return cases

    @property
    def units(self) -> Units:
        """Return the units in which lengths and volumes are shown."""
        return UNITS[self.unit]


@dataclass(frozen=True)
class Thumbnail:
    """A case as the page shows it.

    Attributes:
        name: the name of the case.
        picture: the picture of its labels; None where it cannot be read.
        facts: part and grid, in words.
        problems: severity and text of its findings, the worst first.
    """

    name: str
    picture: Picture | None
    facts: str
    problems: Sequence[tuple[str, str]]


def counts(examined: Examination) -> str:
    """Return how many cases each part has."""
    said = []
    for part, cases in examined.parts.items():
        if cases:
            said.append(count(len(cases), f"{PARTS[part]} case"))
    return ", ".join(said)


def rank(finding: Finding) -> tuple[int, str]:
    """Return by what findings are sorted: errors first, then by kind and case."""
    return WORST.index(finding.kind), finding.case


def kinds(examined: Examination) -> Table | None:
    """Return a row per kind of finding, the worst first; None where there is none."""
    found = Counter(finding.kind for finding in examined.findings)
    rows: list[list[Cell]] = []
    for kind in WORST:
        if found[kind]:
            rows.append([kind, SEVERITY[kind], found[kind]])
    columns = [Column("kind"), Column("severity"), Column("findings", 0)]
    return Table("kinds of findings, the worst first", columns, rows) if rows else None


def findings(examined: Examination) -> Table | None:
    """Return a row per finding, the worst first; None where there is none."""
    if not examined.findings:
        return None
    worst_first = sorted(examined.findings, key=rank)
    rows: list[list[Cell]] = []
    for finding in worst_first[:ROWS]:
        problem = shortened(finding.problem, examined)
        rows.append([finding.case, finding.severity, problem, finding.remedy])
    shown = f"the worst {len(rows)} of " if len(worst_first) > ROWS else ""
    caption = f"{shown}{count(len(worst_first), 'finding')}, the worst first; all: doctor.csv"
    return Table(caption, list(map(Column, ("case", "severity", "problem", "what to do"))), rows)


def shortened(problem: str, examined: Examination) -> str:
    """Return a problem with paths that are relative to the dataset's folder."""
    return problem.replace(f"{examined.root}{os.sep}", "")


def labels(examined: Examination) -> Table | None:
    """Return a row per label: cases that have it, its sizes, and the metrics that suit it."""
    usable = usable_of(examined.cases)
    advice = {one.label: one.reason for one in advise(usable, examined.labels)}
    parts = {part: cases for part, cases in examined.parts.items() if cases}
    columns = [Column("label"), Column("id", 0)]
    for part, cases in parts.items():
        columns.append(Column(f"{PARTS[part]} cases, of {len(cases)}", 0))
    volume = examined.units.volume
    for name in ("smallest", "median", "largest"):
        columns.append(Column(f"{name}, {volume}", examined.units.digits))
    columns += [Column("parts, median", 0), Column("metrics that suit it")]
    rows: list[list[Cell]] = []
    for name, number in examined.labels.items():
        if number:
            present = [_with_label(cases, number) for cases in parts.values()]
            row: list[Cell] = [name, number, *map(len, present)]
            row += _sizes(np.concatenate(present), examined.units)
            rows.append([*row, advice.get(name, "")])
    caption = "labels; sizes are over the cases that have one"
    return Table(caption, columns, rows) if rows else None


def _with_label(cases: Sequence[InspectedCase], number: int) -> np.ndarray:
    """Return a row per case that has a label: its volume in mL, and its connected parts."""
    rows: list[list[float]] = []
    for case in cases:
        if case.grid is None or not case.usable:
            continue
        for found, voxels, parts, _ in case.sizes.tolist():
            if found == number:
                rows.append([voxels * case.grid.voxel_ml, parts])
    return np.array(rows, float).reshape(-1, 2)


def _sizes(rows: np.ndarray, units: Units) -> list[Cell]:
    """Return the smallest, median and largest volume, and the median number of parts."""
    if not len(rows):
        return [None] * 4
    volumes, parts = rows.T
    found: list[Cell] = []
    for volume in (volumes.min(), np.median(volumes), volumes.max()):
        found.append(float(units.of_volume(float(volume))))
    return [*found, float(np.median(parts))]


def grids(examined: Examination) -> Table | None:
    """Return a row per axis with the voxel sizes and the sizes of the scans."""
    read = [case.grid for case in examined.cases if case.grid is not None]
    if not read:
        return None
    spacings = np.array([grid.ras_spacing_mm for grid in read])
    shapes = np.array([grid.ras_shape for grid in read], float)
    seen = [(axis, AXES[axis]) for axis in range(3) if (shapes[:, axis] > 1).any()]
    rows: list[list[Cell]] = []
    for axis, name in seen:
        heading = f"voxel size {name}, {examined.units.length}"
        rows.append(_spread(heading, np.round(spacings[:, axis], 4), "{:.4g}"))
    for axis, name in seen:
        rows.append(_spread(f"size {name}, voxels", shapes[:, axis], "{:.0f}"))
    columns = list(map(Column, ("what", "smallest", "median", "largest")))
    caption = f"grids of {count(len(read), 'case')}"
    return Table(caption, [*columns, Column("different values", 0)], rows)


def _spread(name: str, values: np.ndarray, form: str) -> list[Cell]:
    """Return a name with the smallest, median and largest value, and how many values differ."""
    three = (float(values.min()), float(np.median(values)), float(values.max()))
    return [name, *map(form.format, three), len(np.unique(values))]


def groups(examined: Examination) -> tuple[str, Table | None]:
    """Return what is known of patients with several cases, and a row per patient."""
    sides: dict[str, list[int]] = {}
    split: list[list[Case]] = []
    cases: list[Case] = []
    for part in ("train", "val"):
        split.append([inspected.case for inspected in examined.parts[part]])
        cases += split[-1]
    is_grouped = any(case.group for case in cases)
    suggestion = None if is_grouped else suggest_groups(map(name_of, cases))
    group_of = {} if suggestion is None else _inverted(suggestion.groups)
    for side, cases in enumerate(split):
        for case in cases:
            group = case.group or group_of.get(case.name)
            if group:
                sides.setdefault(group, [0, 0])[side] += 1
    if not sides:
        return (
            "Names suggest no patients with several cases: each case is a patient of its own.",
            None,
        )
    return _described(sides, None if suggestion is None else suggestion.pattern), _group_table(
        sides
    )


def _inverted(groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return case -> group."""
    found: dict[str, str] = {}
    for group, names in groups.items():
        found |= dict.fromkeys(names, group)
    return found


def _described(sides: Mapping[str, Sequence[int]], pattern: str | None) -> str:
    """Return in words how many patients there are, and how many are on both sides of the split."""
    both = sum(min(numbers) > 0 for numbers in sides.values())
    if pattern is None:
        return f"The dataset names {count(len(sides), 'patient')}; {both} of them on both sides."
    return (
        f"Names suggest {count(len(sides), 'patient')}, {both} of them on both sides of the split. "
        f"If so, data.group='{pattern}' keeps them together."
    )


def _group_table(sides: Mapping[str, Sequence[int]]) -> Table:
    """Return a row per patient, those on both sides first, then those of most cases."""

    def order(group: str) -> tuple[bool, int, str]:
        return min(sides[group]) == 0, -sum(sides[group]), group

    rows: list[list[Cell]] = []
    for group in sorted(sides, key=order)[:ROWS]:
        rows.append([group, *sides[group]])
    shown = f"the first {ROWS} of " if len(sides) > ROWS else ""
    caption = f"{shown}{count(len(sides), 'patient')}, those on both sides of the split first"
    columns = [Column("patient"), Column("training cases", 0), Column("validation cases", 0)]
    return Table(caption, columns, rows)


def thumbnails(
    chosen: Sequence[InspectedCase], pictures: Mapping[str, Picture], examined: Examination
) -> list[Thumbnail]:
    """Return a thumbnail of each case, with its picture where it could be drawn."""
    part_of: dict[int, str] = {}
    for part, cases in examined.parts.items():
        part_of |= dict.fromkeys(map(id, cases), part)
    shown: list[Thumbnail] = []
    for inspected in chosen:
        name = inspected.case.name
        facts = [PARTS[part_of[id(inspected)]]]
        if inspected.grid is not None:
            facts += _grid_facts(inspected.grid, examined)
        problems: list[tuple[str, str]] = []
        for finding in sorted(inspected.findings, key=rank):
            problems.append((finding.severity, shortened(finding.problem, examined)))
        shown.append(Thumbnail(name, pictures.get(name), ", ".join(facts), problems))
    return shown


def _grid_facts(grid: Grid, examined: Examination) -> list[str]:
    """Return size and voxel size of a scan in words; pixels without millimetres have no size."""
    if examined.unit == "px2":
        return [f"{times(edge for edge in grid.ras_shape if edge > 1)} pixels"]
    spacing = [f"{edge:.3g}" for edge in grid.ras_spacing_mm]
    return [f"{times(grid.ras_shape)} voxels", f"{times(spacing)} {examined.units.length}"]
