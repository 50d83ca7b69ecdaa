"""How long the stages of a prediction take, and how far its windows are."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

ProgressCallback = Callable[[int, int], None]  # called with the windows done, and all of the scan's


def reporting(
    network: Callable[[Tensor], Tensor], total: int, progress: ProgressCallback
) -> Callable[[Tensor], Tensor]:
    """Return the same network, which reports after each batch how many windows are done."""
    done = 0

    def computed(patches: Tensor) -> Tensor:
        nonlocal done
        logits = network(patches)
        done += len(patches)
        progress(done, total)
        return logits

    return computed


def timed_slabs(slabs: Iterator[Tensor], seconds: dict[str, float]) -> Iterator[Tensor]:
    """Yield the slabs, and add the wall time that the network takes for them."""
    while True:
        start = time.perf_counter()
        slab = next(slabs, None)
        seconds["network"] += time.perf_counter() - start
        if slab is None:
            return
        yield slab


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Measure the wall time of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
