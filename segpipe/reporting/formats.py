"""The formats in which figures are written, one choice for a whole command."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_beside_png: list[str] = []


@contextmanager
def figures_as(formats: Sequence[str]) -> Iterator[None]:
    """Write every figure of the block in these formats; as PNG, which pages show, in any case.

    Args:
        formats: `png`, `pdf`, `svg`.
    """
    before = list(_beside_png)
    use(formats)
    try:
        yield
    finally:
        _beside_png[:] = before


def use(formats: Sequence[str]) -> None:
    """Write every figure of this process in these formats, as a worker of a command does."""
    _beside_png[:] = [name for name in dict.fromkeys(formats) if name != "png"]


def in_use() -> list[str]:
    """Return the formats in which figures are written, PNG first."""
    return ["png", *_beside_png]
