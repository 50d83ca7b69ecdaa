"""Headers of text, `key: value` a line, as MetaImage and NRRD have them.

Nothing of a header is believed: lines, numbers and sizes are bounded, and it may only name regular
files of its own folder.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from segpipe import text
from segpipe.errors import DataError
from segpipe.io.notes import warn
from segpipe.io.unpack import opened, regular_size

LARGEST_HEADER = 2**24  # bytes; headers with a dump of DICOM tags have some 100 KiB
LONGEST_NAME = 4096
MOST_LINES = 50_000
MOST_FILES = 10_000  # of one volume
LONGEST_SHOWN = 60  # characters of a value in a message
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MM = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}
UNSAID = {"", "?", "???", "none"}  # in place of a unit
NUMBERED = re.compile(
    r"([^%]*%0?\d?d[^%]*?)\s+(\d{1,9})\s+(\d{1,9})(?:\s+([1-9]\d{0,8}))?(?:\s+\d)?"
)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class TextHeader:
    """The fields of a header, as text.

    Attributes:
        path: file of the header.
        fields: values by key.
        end: bytes of the file that the header takes.
        names: lines after a key that announces a list of files, `MOST_FILES` and one at most.
    """

    path: Path
    fields: dict[str, str]
    end: int
    names: list[str] = field(default_factory=list)

    def error(self, reason: str) -> DataError:
        """Return an error about this header."""
        return DataError(f"{self.path}: {reason}")

    def unit_mm(self, words: Iterable[str]) -> float:
        """Return the mm of a unit of length, 1 where it is not said; warn where it is not known.

        Args:
            words: the words that name it, one for each axis or one for all; those that name no
                unit, such as `?` and `none`, count for nothing.

        Raises:
            DataError: if axes have several units.
        """
        named = sorted(set(words) - UNSAID)
        known = {MM[word] for word in named if word in MM}
        if len(known) > 1:
            raise self.error(f"its axes have several units, {', '.join(named)}; segpipe reads one")
        if named and not known:
            warn(self.path, f"its unit {shown(', '.join(named))} is not known; mm are assumed")
        return known.pop() if known else 1.0

    def text(self, key: str) -> str:
        """Return a value.

        Raises:
            DataError: if the header lacks it.
        """
        if key not in self.fields:
            raise self.error(f"cannot be read: its header has no {key}")
        return self.fields[key]

    def numbers(self, key: str, count: int, kind: Callable[[str], Number]) -> list[Number]:
        """Return the numbers of a value, separated by spaces.

        Raises:
            DataError: if there are more or fewer, or something else.
        """
        return self.parsed(key, self.text(key).split(), count, kind)

    def parsed(
        self, key: str, words: list[str], count: int, kind: Callable[[str], Number]
    ) -> list[Number]:
        """Return words of a value as numbers.

        Raises:
            DataError: if there are more or fewer, or one is no number.
        """
        numbers = []
        with suppress(ValueError):
            # Python's own readers of numbers take `1_000` and the digits of every script
            if all(word.isascii() and "_" not in word for word in words):
                numbers = list(map(kind, words))
        if len(numbers) != count:
            what = text.count(count, "whole number" if kind is int else "number")
            given = shown(self.fields[key])
            raise self.error(f"cannot be read: its {key} is {given}, and must be {what}")
        return numbers

    def whole(self, key: str, default: int) -> int:
        """Return one whole number."""
        return self.numbers(key, 1, int)[0] if key in self.fields else default

    def axes(self, dimension: str, sizes: str) -> list[int]:
        """Return the sizes of all axes, the one that changes fastest first.

        Raises:
            DataError: if they are not one to five positive numbers.
        """
        (count,) = self.numbers(dimension, 1, int)
        if not 1 <= count <= 5:
            raise self.error(f"its {dimension} is {count}; a scan has 3 axes")
        axes = self.numbers(sizes, count, int)
        if min(axes) < 1:
            raise self.error(f"its {sizes} is {shown(self.fields[sizes])}, and must be positive")
        return axes


def following_names(lines: Iterator[tuple[str, int]]) -> list[str]:
    """Return the names of files that stand in the rest of a header, a line each."""
    names = filter(None, (line.strip() for line, _ in lines))
    return list(islice(names, MOST_FILES + 1))


def shown(value: str) -> str:
    """Return text of a file for a message: quoted, escaped and shortened."""
    return ascii(value) if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]!a}..."


def read_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the lines of a header, without their ends, and the bytes of the file up to there.

    Raises:
        DataError: if it is no regular file, or goes on for too long.
    """
    end = 0
    with opened(path) as file:
        for number in count(1):
            line = file.readline(LARGEST_HEADER + 1 - end)
            end += len(line)
            if not line:
                return
            if end > LARGEST_HEADER or number > MOST_LINES:
                raise DataError(
                    f"{path}: its header does not end within {LARGEST_HEADER} bytes "
                    f"and {MOST_LINES} lines"
                )
            yield line.decode(errors="surrogateescape").rstrip("\r\n"), end


def listed_files(header: TextHeader, value: str, voxels: int) -> list[Path]:
    """Return the files that a header names for its voxels, in their order.

    Args:
        header: a header of any format.
        value: a name; `LIST`, for those of `header.names`; or a pattern with its first and last
            number and step, as in `slice%03d.raw 1 40 1`.
        voxels: their number.

    Raises:
        DataError: if a file is missing, or not the header's to name.
    """
    if len(value) > LONGEST_NAME:
        raise header.error(f"names a file of {len(value)} characters")
    numbered = NUMBERED.fullmatch(value)
    names: Sequence[str | int] = [value]
    if value.split()[:1] == ["LIST"]:
        names = header.names
    elif numbered:
        names = range(int(numbered[2]), int(numbered[3]) + 1, int(numbered[4] or 1))
    if not 1 <= len(names) <= MOST_FILES or voxels % len(names):
        raise header.error(f"names {len(names)} files, which cannot be parts of {voxels} voxels")
    if len(set(names)) < len(names):
        raise header.error("names a file of its voxels twice")
    if numbered:
        # the pattern has nothing but one %d: a name with other printf directives is only a name
        names = [numbered[1] % number for number in names]
    return [data_file(header.path, str(name)) for name in names]


def data_file(header: Path, name: str) -> Path:
    """Return a file that a header names.

    Raises:
        DataError: if it lies outside the header's folder, or is no regular file.
    """
    file = header.parent / name
    try:
        real = file.resolve()
        homes = (header.parent.resolve(), header.resolve().parent)
    except (OSError, RuntimeError, ValueError):
        raise DataError(f"{header}: names the file {shown(name)}, which cannot exist") from None
    inside = any(real.is_relative_to(home) for home in homes)
    if Path(name).is_absolute() or ".." in Path(name).parts or not inside:
        raise DataError(
            f"{header}: names the file {shown(name)}, which lies outside its folder; "
            "a header may only name files beside it"
        )
    try:
        regular_size(file)
    except DataError:
        reason = f"names the file {shown(name)}, and there is no such regular file"
        raise DataError(f"{header}: {reason}") from None
    return file


def header_and(path: Path, files: list[Path]) -> list[Path]:
    """Return the file of a header and those of its voxels, each once."""
    return [path, *(file for file in files if file != path)]


def to_nifti(axes: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return an affine to mm in RAS+, rounded to single precision as NIfTI headers hold it.

    Args:
        axes: steps along each axis in LPS+, a column each, mm, `(n, n)`, n being 2 or 3.
        origin: centre of the first voxel in LPS+, mm, `(n,)`.
    """
    affine = np.eye(4)
    count = len(origin)
    affine[:count, :count] = axes
    affine[:count, 3] = origin
    return (LPS_TO_RAS @ affine).astype(np.float32).astype(float)


def without_trailing_ones(header: TextHeader, axes: list[int]) -> tuple[tuple[int, int, int], int]:
    """Return the shape `(x, y, z)`, and how many of the axes it is made of, 2 or 3.

    A picture is a volume of one slice; axes of one voxel after the third are dropped.

    Raises:
        DataError: if there are more axes, or one.
    """
    kept = len(axes)
    while kept > 3 and axes[kept - 1] == 1:
        kept -= 1
    if kept not in (2, 3):
        raise header.error(f"has {kept} axes; a scan has 3, with one file per channel")
    x, y, z = (*axes[:kept], 1)[:3]
    return (x, y, z), kept
