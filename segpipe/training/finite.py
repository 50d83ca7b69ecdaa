"""The check that the loss is a number, for which the host does not wait for a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segpipe.errors import DivergedError


@dataclass(frozen=True)
class _Step:
    """The loss of a step.

    Attributes:
        number: the number of the step.
        names: the names of the terms.
        values: the values of the terms, on the host; on its way there until `copied`.
        cases: the cases whose patches they are.
        copied: the `torch.cuda.Event` behind the copy; None where there was none to make.
    """

    number: int
    names: Sequence[str]
    values: Tensor
    cases: Sequence[str]
    copied: Any


class FiniteLoss:
    """Ends a training whose loss is no number: at once on the CPU, a step later on a GPU.

    A GPU is still computing when the host comes by. Its loss is copied in the background, and
    looked at when the next step has been given to it.
    """

    def __init__(self) -> None:
        self.last: _Step | None = None

    def check(self, number: int, terms: dict[str, Tensor], cases: Sequence[str]) -> None:
        """Check the loss of this step, or on a GPU that of the step before.

        Args:
            number: the number of the step.
            terms: weighted terms of the loss by name.
            cases: the cases whose patches they are.

        Raises:
            DivergedError: if it is infinite or NaN; it names the step, the terms and the cases.
        """
        before = self.last
        self.last = _started(number, terms, cases)
        if self.last.copied is None:
            before = self.last
            self.last = None
        if before is not None:
            _check(before)

    def check_last(self) -> None:
        """Check the loss of the last step, if that was not done yet.

        Raises:
            DivergedError: if it is infinite or NaN.
        """
        last = self.last
        self.last = None
        if last is not None:
            _check(last)


def _started(number: int, terms: dict[str, Tensor], cases: Sequence[str]) -> _Step:
    """Begin to copy the terms to the host."""
    values = torch.stack(list(terms.values())).detach()
    if values.device.type != "cuda":
        return _Step(number, list(terms), values, cases, None)
    host = values.to("cpu", non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return _Step(number, list(terms), host, cases, copied)


def _check(step: _Step) -> None:
    if step.copied is not None:
        step.copied.synchronize()
    loss = float(step.values.sum())
    if torch.isfinite(step.values.sum()):
        return
    pairs = zip(step.names, step.values.tolist(), strict=True)
    parts = ", ".join(f"{name} {value:g}" for name, value in pairs)
    raise DivergedError(
        f"step {step.number}: the loss is {loss:g} ({parts}) on patches of "
        f"{', '.join(step.cases)}; lower optim.lr, or look at these cases with mode=doctor"
    )
