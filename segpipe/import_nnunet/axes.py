"""The order of the axes in a network of nnU-Net's, and here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """The axes of model space, x, y, z of a scan, in nnU-Net's order.

    nnU-Net reads a scan as z, y, x and brings it to the order of `transpose_forward`; a 2D network
    of its sees slices across the first of those axes.

    Attributes:
        axes: nnU-Net's axis for x, y and z, the slice axis included.
        dims: axes that the network sees.
    """

    axes: tuple[int, ...]
    dims: int

    @classmethod
    def of(cls, transpose_forward: Sequence[int], dims: int) -> "Turn":
        """Return the turn for a configuration of this many axes."""
        return cls(tuple(transpose_forward.index(2 - axis) for axis in range(3)), dims)

    @property
    def slice_axis(self) -> int | None:
        """Return the axis of model space that a 2D network does not see."""
        return self.axes.index(0) if self.dims == 2 else None

    @property
    def order(self) -> list[int]:
        """Return the axis of nnU-Net's network for each axis of the network here."""
        first = 3 - self.dims
        return [axis - first for axis in self.axes if axis >= first]

    def sizes(self, values: Sequence[int]) -> list[int]:
        """Return a value for each axis that nnU-Net's network sees in the order of those here."""
        return [values[axis] for axis in self.order]

    def spatial(self, values: Sequence[Any], across: Any) -> list[Any]:
        """Return likewise three values, with this one for the slice axis."""
        found = list(map(values.__getitem__, self.order))
        if self.slice_axis is not None:
            found.insert(self.slice_axis, across)
        return found

    def mirrored(self, axes: Sequence[int]) -> list[Any]:
        """Return the axes of model space for axes of nnU-Net's network."""
        first = 3 - self.dims
        return sorted(self.axes.index(axis + first) for axis in axes if axis < self.dims)
