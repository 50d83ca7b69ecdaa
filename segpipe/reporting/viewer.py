"""Scans with their masks inside a page, shown as slices and volumes in the browser by NiiVue.

NiiVue itself is inside the page too. A volume is stored as gzip in base64: the scan in 256 grey
values with the contrast of the pictures, masks as indices of the labels.
"""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from operator import itemgetter

import numpy as np
from jaxtyping import Float, Integer, Num

from segpipe.reporting.contrast import foreground, window
from segpipe.text import count

MIB = 2**20
GZIP_LEVEL = 6  # level 9 takes four times as long for 1 % less
BUNDLE = "niivue/niivue.umd.js.gz"
LICENCE = "niivue/LICENSE"
MOST_NAMES = 8  # cases without room that the note names


@dataclass(frozen=True)
class ViewerCase:
    """A case in the form that the viewer's script reads.

    Attributes:
        name: the name of the case.
        shape: voxels along x, y, z.
        affine: 16 numbers row by row, from voxel indices to mm in RAS+.
        scan: grey values, one byte per voxel, first axis fastest, as gzip in base64.
        prediction: index of the label of each voxel, 0 for the background, stored likewise.
        truth: likewise; None where there is none.
    """

    name: str
    shape: Sequence[int]
    affine: Sequence[float]
    scan: str
    prediction: str
    truth: str | None

    @property
    def size(self) -> int:
        """Number of bytes that the case adds to a page."""
        return len(self.scan) + len(self.prediction) + len(self.truth or "")


@dataclass
class ViewerBudget:
    """The cases of a page's viewer within a size limit; those with the lowest scores are kept.

    Attributes:
        limit_mib: most MiB that the cases may take together.
        cases: pairs of score and case, in increasing order of the score.
        left_out: names of the cases beyond the limit.
    """

    limit_mib: float
    cases: list[tuple[float, ViewerCase]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, score: float, case: ViewerCase) -> None:
        """Add a case; drop those with the highest scores while the limit is exceeded.

        Args:
            score: by which cases are ranked; NaN and infinity count as the highest.
            case: to add.
        """
        self.cases.append((score if np.isfinite(score) else np.inf, case))
        self.cases.sort(key=itemgetter(0))
        while self.size > self.limit_mib * MIB:
            _, dropped = self.cases.pop()
            self.left_out.append(dropped.name)

    @property
    def size(self) -> int:
        """Number of bytes of all cases kept."""
        return sum(case.size for _, case in self.cases)


@dataclass(frozen=True)
class Viewer:
    """The content of the viewer's section of a page.

    Attributes:
        cases: in the order of the menu.
        labels: names of the labels without the background.
        note: how much the section holds, and which cases it lacks.
    """

    cases: Sequence[ViewerCase]
    labels: Sequence[str]
    note: str

    @property
    def colours(self) -> list[tuple[int, ...]]:
        """Red, green and blue of each label, 0 to 255, as in the pictures."""
        # imported late: matplotlib takes longer to import than a small scan to segment
        from segpipe.reporting.pictures import colour

        colours: list[tuple[int, ...]] = []
        for index in range(len(self.labels)):
            red, green, blue = np.rint(255 * np.array(colour(index))).astype(int).tolist()
            colours.append((red, green, blue))
        return colours

    @property
    def bundle(self) -> str:
        """NiiVue, as gzip in base64."""
        content = files("segpipe.reporting").joinpath(BUNDLE).read_bytes()
        return base64.b64encode(content).decode("ascii")

    @property
    def licence(self) -> str:
        """Licences of NiiVue and of the packages bundled with it."""
        return files("segpipe.reporting").joinpath(LICENCE).read_text(encoding="utf-8")


def viewer_case(
    name: str,
    image: Num[np.ndarray, "x y z"],
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"] | None,
    affine: Float[np.ndarray, "4 4"],
) -> ViewerCase | None:
    """Return a case for the viewer, or None for a 2D image, which has no volume to show.

    Args:
        name: the name of the case.
        image: scan on its own grid.
        prediction: index of the label of each voxel, 0 for the background, at most 255.
        truth: likewise, or None.
        affine: from voxel indices to mm in RAS+.
    """

    if min(image.shape) < 2:
        return None
    grey = np.rint(255 * window(image, foreground(prediction, truth)))
    return ViewerCase(
        name,
        shape=list(image.shape),
        affine=affine.astype(float).ravel().tolist(),
        scan=_packed(grey),
        prediction=_packed(prediction),
        truth=None if truth is None else _packed(truth),
    )


def make_viewer(budget: ViewerBudget, labels: Sequence[str]) -> Viewer | None:
    """Return the viewer of the cases added; None if there was none.

    Args:
        budget: the cases, and the names of those beyond the limit.
        labels: names of the labels without the background.
    """
    if not budget.cases and not budget.left_out:
        return None
    cases = [case for _, case in budget.cases]
    note = f"{count(len(cases), 'case')}, {budget.size / MIB:.1f} MiB of at most "
    note += f"{budget.limit_mib:g} (page.viewer_mib), the worst first"
    if budget.left_out:
        note += f"; without room: {_shortened(sorted(budget.left_out))}"
    return Viewer(cases, labels, f"{note}.")


def _shortened(names: Sequence[str]) -> str:
    """Return the first names and the number of the others."""
    text = ", ".join(names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{text}, and {more} more" if more > 0 else text


def _packed(volume: np.ndarray) -> str:
    """Return a volume as bytes, first axis fastest, as gzip in base64."""
    content = gzip.compress(volume.astype(np.uint8).tobytes(order="F"), GZIP_LEVEL, mtime=0)
    return base64.b64encode(content).decode("ascii")
