"""What can be seen of one case alone: whether its files can be used, and what the plan must know of them."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.ndimage import find_objects
from scipy.ndimage import label as components

from segpipe.data.cases import Case
from segpipe.data.loading import load
from segpipe.data.prepare import to_index
from segpipe.errors import DataError
from segpipe.geometry import Grid, check_same_grid, corners_apart_mm
from segpipe.io.volumes import read

SAMPLE = 10_000  # labelled voxels per case that stand for its intensities
MOST_LABELS = 255  # more ids than this are intensities, not labels
SAME_PLACE_MM = 1e-3  # a label map closer than this lies on its image
SPACING_MM = (0.02, 20.0)  # outside of this it is taken for a mistake of units
SHEAR = 1e-3  # cosine between two axes from which they are called oblique to one another


# error: the case cannot be used; warning: it can
SEVERITY: dict[str, Literal["error", "warning"]] = {
    "unreadable": "error",
    "constant": "error",
    "channels": "error",
    "grid": "error",
    "values": "error",
    "picture": "error",
    "leak": "error",
    "affine": "warning",
    "blank": "warning",
    "spacing": "warning",
    "shear": "warning",
    "mirrored": "warning",
    "unlabelled": "warning",
    "copy": "warning",
}


@dataclass(frozen=True)
class Finding:
    """Something wrong with a case.

    Attributes:
        case: its name.
        kind: one of `SEVERITY`.
        problem: the file and the numbers.
        mend: what to do.
    """

    case: str
    kind: str
    problem: str
    mend: str

    @property
    def severity(self) -> Literal["error", "warning"]:
        """`error`: the case cannot be used; `warning`: it can."""
        return SEVERITY[self.kind]


@dataclass
class InspectedCase:
    """A case as it was found.

    Attributes:
        case: the case.
        findings: what is wrong with it.
        grid: of its image; None where that cannot be read.
        ids: the values of its label map.
        foreground: `(channels, voxels)`, a sample of its labelled intensities.
        sizes: a row per label that it has: id, voxels, connected parts, voxels of the largest part.
        box: voxels of the smallest box that holds all that is not 0, along the scan's own axes.
        void: per channel the share of its voxels that are exactly 0.
        content: a hash of its image's voxels.
        label_content: a hash of its label map's voxels.
    """

    case: Case
    findings: list[Finding] = field(default_factory=list)
    grid: Grid | None = None
    ids: np.ndarray = field(default_factory=lambda: np.empty(0))
    foreground: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    sizes: np.ndarray = field(default_factory=lambda: np.empty((0, 4), np.int64))
    box: np.ndarray = field(default_factory=lambda: np.ones(3, np.int64))
    zero_fraction: np.ndarray = field(default_factory=lambda: np.empty(0))
    content: str = ""
    label_content: str = ""

    @property
    def usable(self) -> bool:
        """Whether there is no error."""
        return all(finding.severity != "error" for finding in self.findings)

    def pack(self) -> dict[str, np.ndarray]:
        """All but the case, as arrays."""
        grid = self.grid and [self.grid.shape, self.grid.affine.tolist()]
        findings = [[one.kind, one.problem, one.mend] for one in self.findings]
        about = json.dumps([findings, grid, self.content, self.label_content])
        return {
            "about": np.frombuffer(about.encode(), np.uint8),
            "ids": self.ids,
            "foreground": self.foreground,
            "sizes": self.sizes,
            "box": self.box,
            "void": self.zero_fraction,
        }

    @classmethod
    def unpack(cls, case: Case, arrays: dict[str, np.ndarray]) -> "InspectedCase":
        """Undoes `pack`."""
        findings, grid, *metadata = json.loads(arrays["about"].tobytes())
        return cls(
            case,
            [Finding(case.name, *one) for one in findings],
            grid and Grid(tuple(grid[0]), np.array(grid[1])),
            np.array(arrays["ids"]),
            np.array(arrays["foreground"]),
            np.array(arrays["sizes"]),
            np.array(arrays["box"]),
            np.array(arrays["void"]),
            *metadata,
        )

    def add(self, kind: str, problem: str, mend: str) -> None:
        """Notes a finding."""
        self.findings.append(Finding(self.case.name, kind, problem, mend))


def inspect_case(
    case: Case, labels: dict[str, int] | None, ignore: int | None = None
) -> InspectedCase:
    """Everything that can be seen of one case alone."""
    seen = InspectedCase(case)
    try:
        image = read(case.images, load)
    except DataError as error:
        seen.add("unreadable", str(error), "replace or leave out the file")
        return seen
    seen.grid = Grid.of(image)
    voxels = image.numpy()
    seen.content = _hash(voxels)
    seen.foreground = np.empty((len(voxels), 0), np.float32)
    filled = voxels != 0
    seen.zero_fraction = 1 - filled.mean((1, 2, 3))
    (box,) = find_objects(filled.any(0).astype(np.uint8)) or [None]
    seen.box = np.array([side.stop - side.start for side in box] if box else voxels.shape[1:])
    _check_image(seen, voxels)
    if (
        case.label is not None
        and (label := _read_label(seen, case.label, labels, ignore)) is not None
    ):
        seen.label_content = _hash(label)
        inside = voxels[:, label > 0]
        seen.foreground = inside[:, :: max(1, inside.shape[1] // SAMPLE)].astype(np.float32)
        seen.sizes = _sizes(label)
    return seen


def _hash(voxels: np.ndarray) -> str:
    return hashlib.sha256(repr(voxels.shape).encode() + voxels.tobytes()).hexdigest()


def _sizes(label: np.ndarray) -> np.ndarray:
    """The rows of `Examined.sizes`; parts touch by a face, an edge or a corner."""
    rows, boxes = [], find_objects(label.astype(np.int32))
    for number, box in enumerate(boxes, start=1):
        if box is not None:
            parts: Any = components(label[box] == number, np.ones((3, 3, 3)))[0]  # type: ignore[index]
            voxels = np.bincount(parts.ravel())[1:]
            rows.append([number, voxels.sum(), len(voxels), voxels.max()])
    return np.array(rows, np.int64).reshape(-1, 4)


def _check_image(seen: InspectedCase, voxels: np.ndarray) -> None:
    assert seen.grid is not None
    name, spacing = seen.case.images[0], seen.grid.spacing_mm
    blank = [number for number, channel in enumerate(voxels) if channel.min() == channel.max()]
    if len(blank) == len(voxels):
        seen.add(
            "constant",
            f"{name}: every voxel of the image is {voxels.flat[0]:g}",
            "leave out the case",
        )
    for number in blank if len(blank) < len(voxels) else []:
        problem = f"{name}: every voxel of channel {number} is {voxels[number].flat[0]:g}"
        seen.add(
            "blank", problem, "a missing sequence? the network will learn that it may be missing"
        )
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        sizes = "x".join(f"{mm:.3g}" for mm in spacing)
        seen.add(
            "spacing", f"{name}: has voxels of {sizes} mm", "check the unit of the header's spacing"
        )
    axes = seen.grid.affine[:3, :3] / spacing
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > SHEAR:
        degrees = float(np.degrees(np.arcsin(min(cosine, 1))))
        seen.add(
            "shear",
            f"{name}: its axes are {degrees:.1f} degrees off right angles",
            "a tilted gantry? resample it to a rectangular grid; distances in mm are only near",
        )


def _read_label(
    seen: InspectedCase, path: Path, labels: dict[str, int] | None, ignore: int | None
) -> np.ndarray | None:
    """The label map, where it fits its image and could be one."""
    assert seen.grid is not None
    try:
        volume = read([path], load)
    except DataError as error:
        seen.add("unreadable", str(error), "replace or leave out the file")
        return None
    label, grid = volume.numpy(), Grid.of(volume)
    if len(label) != 1:
        seen.add(
            "values",
            f"{path}: has {len(label)} channels; a label map has one",
            "merge them into ids 0, 1, 2 ...",
        )
        return None
    try:
        check_same_grid(seen.case.images[0], seen.grid, path, grid)
    except DataError as error:
        seen.add("grid", str(error), "export image and label from the same series again")
        return None
    if (apart := corners_apart_mm(seen.grid, grid)) > SAME_PLACE_MM:
        seen.add(
            "affine", f"{path}: lies up to {apart:.3g} mm from its image", "copy the image's affine"
        )
    if ignore is not None:
        label = np.where(label == ignore, 0, label)
    seen.ids = np.unique(label)
    if problem := _label_problem(path, label, seen.ids, labels):
        seen.add(*problem)
        return None
    if seen.ids.max() == 0:
        seen.add(
            "unlabelled",
            f"{path}: has no labelled voxel",
            "if that is so, keep it; else look for the right file",
        )
    return label[0]


def _label_problem(
    path: Path, label: np.ndarray, ids: np.ndarray, labels: dict[str, int] | None
) -> tuple[str, str, str] | None:
    """What is wrong with the values of a label map: kind, problem and mend."""
    span = f"{len(ids)} values from {ids.min():g} to {ids.max():g}"
    if (ids != np.round(ids)).any() or len(ids) > MOST_LABELS + 1:
        problem = f"{path}: holds {span}, which are not label ids (whole numbers from 0, at most {MOST_LABELS} of them)"
        return (
            "values",
            f"{problem}; is it an image?",
            "give the label map, or round one that was interpolated",
        )
    if ids.min() < 0:
        count = int((label < 0).sum())
        return (
            "values",
            f"{path}: holds {count} negative values, down to {ids.min():g}",
            "label ids start from 0",
        )
    if labels is None:
        return None
    if ids.tolist() == [0, 255] and 255 not in labels.values():
        return (
            "picture",
            f"{path}: holds 0 and 255, a picture of a mask",
            "divide it by 255, or declare data.labels with the id 255",
        )
    try:
        to_index(label, labels, path)
    except DataError as error:
        return "values", str(error), "correct the label map, or declare all its ids by data.labels"
    return None
