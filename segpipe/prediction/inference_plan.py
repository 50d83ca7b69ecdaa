"""What a prediction needs of the memory, forecast before a scan starts, and the ways to compute it with less."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segpipe.data.prepare import model_space
from segpipe.device import NumberFormat, usable_mib
from segpipe.errors import DataError
from segpipe.geometry import MOST_VOXELS, Grid
from segpipe.plan import BATCH_VOXELS, Plan
from segpipe.windows import PIECE, slab_axis

MIB = 2**20
VALUE = 4  # bytes of float32
# measured: bytes at the peak of a forward pass in this format, per byte that `forward_bytes` counts
NEEDED: dict[NumberFormat, float] = {"float32": 1.4, "bf16": 0.65, "fp16": 0.65}


@dataclass(frozen=True)
class InferencePlan:
    """One way to compute a scan; the next one of the ladder needs less memory.

    Attributes:
        where: the windows are put together and leave model space.
        windows: that the network computes at once.
    """

    where: torch.device
    windows: int

    def __str__(self) -> str:
        return f"{self.windows} windows at once, put together on {self.where}"


@dataclass(frozen=True)
class Forecast:
    """The memory that a scan needs at its peak, MiB.

    Attributes:
        device: of the accelerator; 0 where the CPU computes.
        host: of the machine: reading, the volume in model space, and what is computed there.
    """

    device: float
    host: float


def default_batch_size(plan: Plan, device: torch.device) -> int:
    """Windows at once that hold as many voxels as a training step of the device's own."""
    dims = 3 if plan.slice_axis is None else 2
    return max(
        1, BATCH_VOXELS["cuda" if device.type == "cuda" else "cpu", dims] // math.prod(plan.patch)
    )


def fallbacks(device: torch.device, windows: int) -> list[InferencePlan]:
    """All ways, from the fastest: put together on the device, on the host, and with ever fewer windows at once."""
    host = torch.device("cpu")
    first = (
        [InferencePlan(device, windows)]
        if device.type == "cpu"
        else [InferencePlan(device, windows), InferencePlan(host, windows)]
    )
    return [
        *first,
        *(InferencePlan(host, windows >> halved) for halved in range(1, windows.bit_length())),
    ]


def forecast(
    grid: Grid,
    plan: Plan,
    rung: InferencePlan,
    device: torch.device,
    overlap: float,
    number_format: NumberFormat,
    window: int,
) -> Forecast:
    """What a scan needs at most, while the next one is read and the last one written.

    Args:
        grid: the scan's.
        plan: of the network.
        rung: how it is computed.
        device: where the network computes.
        overlap: share of a window that its neighbour sees too.
        number_format: in which the network computes.
        window: bytes that the network's activations take for one window, as `forward_bytes` counts them.
    """
    native, shape, channels = (
        math.prod(grid.shape),
        model_space(plan).shape(grid),
        len(plan.channels),
    )
    padded = [max(size, edge) for size, edge in zip(shape, plan.patch, strict=True)]
    volume = VALUE * (channels + 1) * math.prod(padded)  # and where there is air
    slab = (
        VALUE * (plan.outputs + 1) * _rows(padded, plan, overlap, rung.windows) * math.prod(padded)
    )
    slab //= padded[slab_axis(shape, plan.slice_axis)]
    # a piece of the slab is divided, turned into probabilities, and joined to what is left of the one before
    leaving = 4 * min(slab, VALUE * PIECE) + 5 * VALUE * min(native, MOST_VOXELS)
    together = volume + slab + leaving + native
    logits = VALUE * plan.outputs * math.prod(plan.patch)
    computing = (
        rung.windows * (NEEDED[number_format] * window + logits * (number_format != "float32"))
        + logits
    )
    # it stays as it was read while the next one, as large, is made float32 and brought to model space; the labels of
    # the last one are turned, cleaned and written
    reading = 2 * VALUE * channels * native + volume + 3 * native
    if device.type == "cpu":
        return Forecast(0.0, (reading + together + computing) / MIB)
    on_host = rung.where.type == "cpu"
    return Forecast(
        (computing + together * (not on_host)) / MIB, (reading + together * on_host) / MIB
    )


def first_that_fits(
    rungs: Sequence[InferencePlan], forecasts: Sequence[Forecast], device: torch.device
) -> list[InferencePlan]:
    """The ways from the first on that fits the memory.

    Raises:
        DataError: if not even the last one does.
    """
    host, own = usable_mib(torch.device("cpu")), usable_mib(device)
    for place, needed in enumerate(forecasts):
        if needed.host <= host and (device.type == "cpu" or needed.device <= own):
            return list(rungs[place:])
    least = forecasts[-1]
    also = "" if device.type == "cpu" else f" and {least.device:.0f} of {own:.0f} MiB on {device}"
    raise DataError(
        f"needs about {least.host:.0f} MiB of memory where {host:.0f} MiB may be used{also}, even with {rungs[-1]}: "
        "cut the scan into smaller ones, or use a machine with more memory"
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory could not be had, on a GPU by torch or one of its libraries, or on the host."""
    signs = ("can't allocate memory", "ALLOC_FAILED", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )


def _rows(padded: Sequence[int], plan: Plan, overlap: float, windows: int) -> int:
    """Rows of the slab that is open at once: those of a window, and as many as a batch of windows moves on."""
    axis = slab_axis(padded, plan.slice_axis)
    steps = [max(1, int(edge * (1 - overlap))) for edge in plan.patch]
    counts = [
        math.ceil((size - edge) / step) + 1
        for size, edge, step in zip(padded, plan.patch, steps, strict=True)
    ]
    abreast = math.prod(count for way, count in enumerate(counts) if way != axis)
    return min(padded[axis], plan.patch[axis] + math.ceil((windows - 1) / abreast) * steps[axis])
