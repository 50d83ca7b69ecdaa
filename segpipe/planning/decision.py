"""A value of the plan together with the reason for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
GIVEN = "given"  # the reason where a user has set the value


@dataclass(frozen=True)
class Decision(Generic[T]):
    """A value of the plan and the reason for it.

    Attributes:
        value: the value itself.
        entry: its name, value and unit, as logs and pages show them.
        why: the reason; empty where there was nothing to decide.
    """

    value: T
    entry: str
    why: str

    def __str__(self) -> str:
        """Return the line that logs and pages show, `entry: why`."""
        return f"{self.entry}: {self.why}"


def by_times(sizes: Iterable[float | int]) -> str:
    """Return sizes of three digits joined by `x`."""
    return "x".join(f"{size:.3g}" for size in sizes)
