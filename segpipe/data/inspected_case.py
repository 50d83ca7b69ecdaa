"""What the doctor finds out about one case: its findings and its measurements."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from segpipe.data.cases import Case
from segpipe.data.ceiling import FACTORS
from segpipe.geometry import Grid
from segpipe.text import clipped, visible

Severity = Literal["error", "warning"]

# error: the case cannot be used; warning: it can
SEVERITY: dict[str, Severity] = {
    "unreadable": "error",
    "nan": "error",
    "constant": "error",
    "channels": "error",
    "grid": "error",
    "values": "error",
    "picture": "error",
    "outlier": "error",
    "name": "error",
    "leak": "error",
    "affine": "warning",
    "blank": "warning",
    "survived": "warning",
    "rounded": "warning",
    "spacing": "warning",
    "shear": "warning",
    "mirrored": "warning",
    "unlabelled": "warning",
    "copy": "warning",
    "label": "warning",
    "group": "warning",
}


@dataclass(frozen=True)
class Finding:
    """Something wrong with a case.

    Attributes:
        case: its name, or `(all cases)`.
        kind: one of `SEVERITY`.
        problem: the file and the numbers.
        remedy: what to do about it.
    """

    case: str
    kind: str
    problem: str
    remedy: str

    @property
    def severity(self) -> Severity:
        """Return `error` where the case cannot be used, `warning` where it can."""
        return SEVERITY[self.kind]


@dataclass
class InspectedCase:
    """A case after it was read once, with what is wrong with it and what the plan needs to know.

    Attributes:
        case: the case.
        findings: what is wrong with it.
        grid: the grid of its image; None where that cannot be read.
        ids: the distinct values of its label map.
        foreground: shape `(channels, voxels)`, a sample of its labelled intensities.
        sizes: a row per label that it has: id, voxels, connected parts, voxels of the largest part.
        ceilings: a row for each of `sizes`: what a perfect network would score on coarser grids, as
            `segpipe.data.ceiling` measures it.
        box: size in voxels of the smallest box that holds all that is not 0, along the scan's own
            axes.
        zero_fraction: per channel the share of its voxels that are exactly 0.
        content: a hash of its image's voxels.
        label_content: a hash of its label map's voxels.
    """

    case: Case
    findings: list[Finding] = field(default_factory=list)
    grid: Grid | None = None
    ids: np.ndarray = field(default_factory=lambda: np.empty(0))
    foreground: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    sizes: np.ndarray = field(default_factory=lambda: np.empty((0, 4), np.int64))
    ceilings: np.ndarray = field(default_factory=lambda: np.empty((0, len(FACTORS))))
    box: np.ndarray = field(default_factory=lambda: np.ones(3, np.int64))
    zero_fraction: np.ndarray = field(default_factory=lambda: np.empty(0))
    content: str = ""
    label_content: str = ""

    @property
    def usable(self) -> bool:
        """Return whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def add(self, kind: str, problem: str, remedy: str) -> None:
        """Add a finding of this case."""
        name = clipped(visible(self.case.name))
        self.findings.append(Finding(name, kind, visible(problem), remedy))

    def pack(self) -> dict[str, np.ndarray]:
        """Return all but the case as arrays, to be cached."""
        findings = [[finding.kind, finding.problem, finding.remedy] for finding in self.findings]
        grid = self.grid and [self.grid.shape, self.grid.affine.tolist()]
        metadata = json.dumps([findings, grid, self.content, self.label_content])
        return {
            "metadata": np.frombuffer(metadata.encode(), np.uint8),
            "ids": self.ids,
            "foreground": self.foreground,
            "sizes": self.sizes,
            "ceilings": self.ceilings,
            "box": self.box,
            "zero_fraction": self.zero_fraction,
        }

    @classmethod
    def unpack(cls, case: Case, arrays: dict[str, np.ndarray]) -> "InspectedCase":
        """Return the case that `pack` made these arrays of."""
        findings, grid, content, label_content = json.loads(arrays["metadata"].tobytes())
        inspected = cls(
            case=case,
            grid=Grid(tuple(grid[0]), np.array(grid[1])) if grid else None,
            ids=np.array(arrays["ids"]),
            foreground=np.array(arrays["foreground"]),
            sizes=np.array(arrays["sizes"]),
            ceilings=np.array(arrays["ceilings"]),
            box=np.array(arrays["box"]),
            zero_fraction=np.array(arrays["zero_fraction"]),
            content=content,
            label_content=label_content,
        )
        for finding in findings:
            inspected.add(*finding)
        return inspected


def usable_of(cases: Iterable[InspectedCase]) -> list[InspectedCase]:
    """Return the cases without an error."""
    return [case for case in cases if case.usable]
