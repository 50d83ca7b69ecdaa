"""Scans with their masks inside a page, to be turned and sliced in the browser by NiiVue, which is inside too.

A volume is written as gzip in base64: the scan as 256 grey values of the window that the pictures have too, masks as
the labels' places.
"""

import base64
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
from jaxtyping import Float, Integer, Num

MIB = 2**20
LEVEL = 6  # of gzip; the highest one takes four times as long for 1 % less
BUNDLE, LICENCE = "niivue/niivue.umd.js.gz", "niivue/LICENSE"


@dataclass(frozen=True)
class ViewerCase:
    """A case as the viewer takes it.

    Attributes:
        name: of the case.
        shape: of its voxels.
        affine: row by row, from voxel indices to mm in RAS+.
        scan: voxels with the first axis fastest, a byte each, as gzip in base64; so the masks.
        prediction: places of labels, 0 the background.
        truth: likewise; None where it is not known.
    """

    name: str
    shape: Sequence[int]
    affine: Sequence[float]
    scan: str
    prediction: str
    truth: str | None

    @property
    def size(self) -> int:
        """Bytes that it adds to a page."""
        return len(self.scan) + len(self.prediction) + len(self.truth or "")


@dataclass
class ViewerBudget:
    """The cases of a page's viewer, as many as there is room for, the worst first.

    Attributes:
        limit_mib: room.
        cases: with what each is ranked by.
        left_out: names of those without room.
    """

    limit_mib: float
    cases: list[tuple[float, ViewerCase]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, rank: float, case: ViewerCase) -> None:
        """Puts a case in; where there is no room the highest ranked leave.

        Args:
            rank: the lowest stay longest, NaN last.
            case: to put in.
        """
        self.cases.append((rank if np.isfinite(rank) else np.inf, case))
        self.cases.sort(key=lambda one: one[0])
        while sum(one.size for _, one in self.cases) > self.limit_mib * MIB:
            self.left_out.append(self.cases.pop()[1].name)


@dataclass(frozen=True)
class Viewer:
    """What the viewer's part of a page shows.

    Attributes:
        cases: in the order of its menu.
        labels: names of the labels but the background.
        note: how much is inside, and what is not.
    """

    cases: Sequence[ViewerCase]
    labels: Sequence[str]
    note: str

    @property
    def colours(self) -> list[tuple[int, ...]]:
        """Of the labels, 0 to 255, as the pictures have them."""
        from segpipe.reporting.pictures import (
            colour,  # matplotlib takes longer to import than a small scan to segment
        )

        return [
            tuple(round(255 * part) for part in colour(place)) for place in range(len(self.labels))
        ]

    @property
    def bundle(self) -> str:
        """NiiVue, as gzip in base64."""
        return base64.b64encode(files("segpipe.reporting").joinpath(BUNDLE).read_bytes()).decode(
            "ascii"
        )

    @property
    def licence(self) -> str:
        """Of NiiVue and of what is bundled with it."""
        return files("segpipe.reporting").joinpath(LICENCE).read_text(encoding="utf-8")


def viewer_case(
    name: str,
    image: Num[np.ndarray, "x y z"],
    prediction: Integer[np.ndarray, "x y z"],
    truth: Integer[np.ndarray, "x y z"] | None,
    affine: Float[np.ndarray, "4 4"],
) -> ViewerCase | None:
    """A case for the viewer; None of a picture, which has nothing to turn.

    Args:
        name: of the case.
        image: the scan, on its own grid.
        prediction: places of labels, 0 the background, below 256.
        truth: likewise, or None.
        affine: from voxel indices to mm in RAS+.
    """
    if min(image.shape) < 2:
        return None
    labelled = prediction > 0 if truth is None else (prediction > 0) | (truth > 0)
    from segpipe.reporting.pictures import window  # as above

    grey = np.rint(255 * window(image, labelled))
    masks = [None if mask is None else _packed(mask) for mask in (prediction, truth)]
    assert masks[0] is not None
    return ViewerCase(
        name,
        list(image.shape),
        [float(one) for one in affine.ravel()],
        _packed(grey),
        masks[0],
        masks[1],
    )


def make_viewer(shelf: ViewerBudget, labels: Sequence[str]) -> Viewer | None:
    """The viewer of what is on the shelf; None where nothing is, and nothing was left out."""
    if not shelf.cases and not shelf.left_out:
        return None
    mib = sum(one.size for _, one in shelf.cases) / MIB
    count = f"{len(shelf.cases)} case{'' if len(shelf.cases) == 1 else 's'}"
    note = (
        f"{count}, {mib:.1f} MiB of at most {shelf.limit_mib:g} (page.viewer_mib), the worst first"
    )
    if shelf.left_out:
        names = ", ".join(_first(sorted(shelf.left_out), 8))
        note += f"; without room: {names}"
    return Viewer([one for _, one in shelf.cases], labels, f"{note}.")


def _first(names: Sequence[str], count: int) -> Iterator[str]:
    yield from names[:count]
    if len(names) > count:
        yield f"and {len(names) - count} more"


def _packed(volume: np.ndarray) -> str:
    content = gzip.compress(volume.astype(np.uint8).tobytes(order="F"), LEVEL, mtime=0)
    return base64.b64encode(content).decode("ascii")
