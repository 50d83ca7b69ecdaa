"""What stands in for a long skip: a change of it, its mean, or that of another scan."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from segpipe.nets.skip_inputs import SkipInput


class SkipMeans:
    """The size of a long skip, and each channel's mean over space and cases."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None  # per channel
        self.voxels = 0
        self.size: tuple[int, ...] = ()

    def record(self, skip: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """Add a skip to the means; return it unchanged."""
        sums = skip.double().sum([0, *range(2, skip.ndim)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.voxels += len(skip) * skip[0, 0].numel()
        self.size = tuple(skip.shape[2:])
        return skip

    def like(self, skip: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """Return the means in the shape of a skip."""
        assert self.sums is not None
        means = (self.sums / self.voxels).to(skip)
        return means.view(1, -1, *[1] * (skip.ndim - 2)).expand_as(skip)


class Shuffled(nn.Module):
    """A network with one long skip taken from another scan.

    The other scan is given as further channels of each window.

    Args:
        network: maps `(B, C, *spatial)` to logits.
        skip: the long skip.
    """

    def __init__(self, network: nn.Module, skip: SkipInput) -> None:
        super().__init__()
        self.network = network
        self.skip = skip

    def forward(self, x: Float[Tensor, "b two_c *space"]) -> Float[Tensor, "b k *space"]:
        """Return logits of the first half of the channels, with the skip of the second half."""
        scan, other = x.chunk(2, 1)
        kept: list[Tensor] = []

        def keep(skip: Tensor) -> Tensor:
            kept.append(skip)
            return skip

        with replaced(self.skip, keep):
            self.network(other)
        with replaced(self.skip, lambda _: kept[0]):
            return self.network(scan)


@contextmanager
def replaced(skip: SkipInput, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace what comes through a long skip by `change(skip)` inside the block."""
    handle = skip.intercept(change)
    try:
        yield
    finally:
        handle.remove()
