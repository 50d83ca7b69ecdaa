"""How long the stages of a prediction take, and how far its windows are."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
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


class Stopwatch:
    """Adds up the time that a device computes, whatever the host does meanwhile.

    A GPU computes what it was given before; so its time is measured by events in its own queue,
    and known once it has come to the last of them.

    Args:
        device: the device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seconds = 0.0
        self.laps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure what is computed in the block."""
        if not self.on_gpu:
            start = time.perf_counter()
            yield
            self.seconds += time.perf_counter() - start
            return
        lap = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        lap[0].record()
        yield
        lap[1].record()
        self.laps.append(lap)

    def read(self) -> float:
        """Return the seconds; the host waits until a GPU has come so far."""
        for start, end in self.laps:
            end.synchronize()
            self.seconds += start.elapsed_time(end) / 1000
        self.laps = []
        return self.seconds


def timed_slabs(slabs: Iterator[Tensor], stopwatch: Stopwatch) -> Iterator[Tensor]:
    """Yield the slabs, and measure the time that the network takes for them."""
    while True:
        with stopwatch.running():
            slab = next(slabs, None)
        if slab is None:
            return
        yield slab


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Measure the wall time of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
