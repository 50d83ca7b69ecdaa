"""The memory that a prediction needs, forecast before a scan is read, and ways to need less."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from segpipe.data.prepare import HOST, model_space
from segpipe.device import NumberFormat, choose_format, usable_mib
from segpipe.errors import DataError
from segpipe.geometry import Grid
from segpipe.nets.ensemble import Ensemble
from segpipe.nets.unet import UNet
from segpipe.plan import BATCH_VOXELS, Plan
from segpipe.prediction.prefetch import count_helpers
from segpipe.resampling import BLOCK_VOXELS
from segpipe.text import count
from segpipe.windows import BLOCK_VALUES, slab_axis

MIB = 2**20
FLOAT_BYTES = 4
# measured: bytes at the peak of a forward pass in this format, per byte that `forward_bytes` counts
PEAK_SHARE: dict[NumberFormat, float] = {"float32": 1.4, "bf16": 0.65, "fp16": 0.65}


def format_for(
    plan: Plan, name: Literal["auto", "float32", "bf16", "fp16"], device: torch.device
) -> NumberFormat:
    """Return the number format of this name, in which a network of this plan predicts.

    `auto` is that of nnU-Net's own predictor for an imported network, so that its masks are the
    same: float32 on a CPU, fp16 on a GPU.

    Raises:
        ConfigError: for fp16 on a CPU.
    """
    if name == "auto" and plan.rules == "nnunet":
        return "float32" if device.type == "cpu" else "fp16"
    return choose_format(name, device)


@dataclass(frozen=True)
class InferencePlan:
    """One way to compute a scan.

    Attributes:
        blending: the device on which windows are blended and labels decided.
        batch_size: windows that the network computes at once.
    """

    blending: torch.device
    batch_size: int

    def __str__(self) -> str:
        return f"{count(self.batch_size, 'window')} at once, blended on {self.blending}"


@dataclass(frozen=True)
class Forecast:
    """The memory that a scan needs at its peak, MiB.

    Attributes:
        device: the memory of the accelerator; 0 where the CPU computes.
        host: the memory of the machine: for reading, the volume in model space, and what is
            computed there.
    """

    device: float
    host: float


@dataclass(frozen=True)
class Workload:
    """What a prediction computes, apart from the scan.

    Attributes:
        plan: the plan of the network.
        device: the device on which the network computes.
        overlap: share of a window that its neighbour covers too.
        number_format: the number format in which the network computes.
        window_bytes: the bytes of the network's activations for one window, as `forward_bytes`
            counts them.
    """

    plan: Plan
    device: torch.device
    overlap: float
    number_format: NumberFormat
    window_bytes: int

    def forecast(self, grid: Grid, way: InferencePlan) -> Forecast:
        """Return what a scan needs, while the next one is read and the last one written."""
        native = math.prod(grid.shape)
        channels = len(self.plan.channels)
        padded = self._padded_shape(grid)
        volume = FLOAT_BYTES * (channels + 1) * math.prod(padded)  # and where there is air
        blending = volume + self._slab_bytes(grid, way.batch_size) + native
        network = self._network_bytes(way.batch_size)
        # The scan stays as it was read while the next one, as large, is made float32 and brought to
        # model space; the labels of the last one are turned, cleaned and written. nnU-Net's rules
        # normalise it before that, and resample it axis by axis.
        copies = 4 if self.plan.rules == "nnunet" else 2
        reading = copies * FLOAT_BYTES * channels * native + volume + 3 * native
        if self.device.type == "cpu":
            return Forecast(0.0, (reading + blending + network) / MIB)
        if way.blending.type == "cpu":
            return Forecast(network / MIB, (reading + blending) / MIB)
        return Forecast((network + blending) / MIB, reading / MIB)

    def entering_mib(self, grid: Grid, helpers: int) -> float:
        """Return what scans of a grid need on the device where they enter model space there.

        One is turned, interpolated and normalised while others wait for the network and for being
        written.

        Args:
            grid: the grid of the scans.
            helpers: scans that are read, and that are written, while the network computes one.
        """
        channels = len(self.plan.channels)
        native = FLOAT_BYTES * channels * math.prod(grid.shape)
        volume = FLOAT_BYTES * (channels + 1) * math.prod(self._padded_shape(grid))
        return (2 * helpers * volume + helpers * (2 * native + volume)) / MIB

    def _padded_shape(self, grid: Grid) -> list[int]:
        """Return the voxels of a scan in model space, padded to the patch."""
        shape = model_space(self.plan).shape(grid)
        return list(map(max, shape, self.plan.patch))

    def _slab_bytes(self, grid: Grid, batch_size: int) -> int:
        """Return the bytes of the slab that is open, and of what is decided of it at once."""
        padded = self._padded_shape(grid)
        axis = slab_axis(model_space(self.plan).shape(grid), self.plan.slice_axis)
        rows = self._open_rows(padded, batch_size)
        slab = FLOAT_BYTES * (self.plan.outputs + 1) * rows * math.prod(padded) // padded[axis]
        # A block of the slab is divided, turned into probabilities, and joined to what is left of
        # the one before.
        block = min(slab, FLOAT_BYTES * BLOCK_VALUES)
        decided = FLOAT_BYTES * min(math.prod(grid.shape), BLOCK_VOXELS)
        return slab + 4 * block + 5 * decided

    def _open_rows(self, padded: Sequence[int], batch_size: int) -> int:
        """Return the rows of the open slab: a window's, and as many as a batch moves on."""
        plan = self.plan
        axis = slab_axis(padded, plan.slice_axis)
        step = 1
        abreast = 1  # windows that lie beside one another in the slab
        for dim, edge in enumerate(plan.patch):
            stride = max(1, int(edge * (1 - self.overlap)))
            if dim == axis:
                step = stride
            else:
                abreast *= math.ceil((padded[dim] - edge) / stride) + 1
        return min(padded[axis], plan.patch[axis] + math.ceil((batch_size - 1) / abreast) * step)

    def _network_bytes(self, batch_size: int) -> float:
        """Return the bytes of a forward pass and its logits."""
        logits = FLOAT_BYTES * self.plan.outputs * math.prod(self.plan.patch)
        window = PEAK_SHARE[self.number_format] * self.window_bytes
        if self.number_format != "float32":
            window += logits  # once more, as float32
        return batch_size * window + logits


def default_batch_size(plan: Plan, device: torch.device) -> int:
    """Return how many windows hold as many voxels as a training step on this device."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    return max(1, BATCH_VOXELS[kind, plan.dims] // math.prod(plan.patch))


def fallbacks(device: torch.device, batch_size: int) -> list[InferencePlan]:
    """Return all ways to compute a scan, the fastest first; each needs less memory than the last.

    Windows are blended on the device, then on the host, then with ever fewer windows at once.
    """
    host = torch.device("cpu")
    plans = [InferencePlan(device, batch_size)]
    if device.type != "cpu":
        plans.append(InferencePlan(host, batch_size))
    while batch_size > 1:
        batch_size //= 2
        plans.append(InferencePlan(host, batch_size))
    return plans


def entrance(workload: Workload, grid: Grid, batch_size: int) -> torch.device:
    """Return the device on which scans of this grid enter model space.

    It is the GPU where it has room for them beside the windows of the scan that is computed.

    Args:
        workload: the workload of the predictor.
        grid: the grid of the scans.
        batch_size: windows that are computed at once.
    """
    device = workload.device
    if device.type != "cuda":
        return HOST
    computing = workload.forecast(grid, InferencePlan(device, batch_size)).device
    needed = computing + workload.entering_mib(grid, count_helpers(device))
    return device if needed <= usable_mib(device) else HOST


def first_that_fits(
    plans: Sequence[InferencePlan], forecasts: Sequence[Forecast], device: torch.device
) -> list[InferencePlan]:
    """Return the plans from the first on that fits the memory.

    Raises:
        DataError: if not even the last one does.
    """
    host_mib = usable_mib(torch.device("cpu"))
    device_mib = usable_mib(device)
    for number, forecast in enumerate(forecasts):
        on_device = device.type == "cpu" or forecast.device <= device_mib
        if forecast.host <= host_mib and on_device:
            return list(plans[number:])
    least = forecasts[-1]
    also = ""
    if device.type != "cpu":
        also = f" and {least.device:.0f} of {device_mib:.0f} MiB on {device}"
    raise DataError(
        f"needs about {least.host:.0f} MiB of memory where {host_mib:.0f} MiB may be used{also}, "
        f"even with {plans[-1]}: cut the scan into smaller ones, or use a machine with more memory"
    )


def size_multiples(network: nn.Module, plan: Plan) -> list[int] | None:
    """Return of what each edge of a window must be a multiple.

    None means that the network may only see windows of the plan's size.
    """
    members = network.networks if isinstance(network, Ensemble) else [network]
    for member in members:
        if not isinstance(member, UNet):
            return None
    return list(map(math.prod, zip(*plan.strides, strict=True)))
