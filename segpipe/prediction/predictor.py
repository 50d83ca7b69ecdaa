"""A case in, a mask on the scanner's grid out; no Lightning needed."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Integer
from torch import nn

from segpipe import checkpoint
from segpipe.checkpoint import Trained
from segpipe.data.prepare import PreparedScan, model_space, prepare_volume, to_label
from segpipe.device import NumberFormat, choose_device, choose_format, computing_in
from segpipe.errors import DataError
from segpipe.geometry import Grid
from segpipe.io.volumes import ScanLike, as_volume
from segpipe.nets.activation_memory import forward_bytes
from segpipe.nets.ensemble import Ensemble
from segpipe.nets.unet import UNet
from segpipe.plan import Plan
from segpipe.prediction.backends import Backend, with_backend
from segpipe.prediction.empty_windows import SkipEmptyWindows, should_skip_air
from segpipe.prediction.inference_plan import (
    InferencePlan,
    default_batch_size,
    fallbacks,
    first_that_fits,
    forecast,
    is_out_of_memory,
)
from segpipe.prediction.maps import Maps
from segpipe.regions import region_label
from segpipe.windows import count_windows, predict_slabs, slab_axis

Watch = Callable[[int, int], None]  # is told how many windows of a scan are done, of how many


@dataclass(frozen=True)
class Prediction:
    """What a network says of one scan.

    Attributes:
        labels: ids inside (0, 1, 2 ...) on the scan's own grid, shape `(x, y, z)`, uint8.
        scan: the scan as the network saw it.
        maps: probabilities and entropy, where they are asked for.
        seconds: wall time of each stage.
        note: what a person should know of how it was computed; empty where all went as usual.
        skipped: windows of nothing but air.
    """

    labels: Integer[np.ndarray, "x y z"]
    scan: PreparedScan
    maps: Maps
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""
    skipped: int = 0

    @property
    def grid(self) -> Grid:
        """The scanner's grid."""
        return self.scan.grid

    def mask(self, plan: Plan) -> Integer[np.ndarray, "x y z"]:
        """The dataset's own label ids, in the one integer type that all masks of its label set share."""
        return to_label(self.labels, plan.labels)


class Predictor:
    """Segments scans with one network.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        plan: how a scan becomes what the network sees.
        device: where it computes.
        number_format: in what it computes.
        overlap: share of a window that its neighbour sees too.
        windows: how many windows are computed at once, where memory allows; None: as the device likes it.
        save: of `mask`, `probabilities` and `entropy`, what a prediction holds; the labels are always there.
        folder: where the files lie in which probabilities and entropy are gathered; None: the system's temporary ones.
        skip_air: leave out windows of nothing but air (`may_skip_air`).
        backend: what computes the network.
        compiled: by `torch.compile`.

    Raises:
        ConfigError: if `skip_air` or `backend` does not go with the network or the device.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        device: torch.device,
        number_format: NumberFormat = "float32",
        overlap: float = 0.5,
        windows: int | None = None,
        save: Sequence[str] = ("mask",),
        folder: Path | None = None,
        skip_air: Literal["auto"] | bool = "auto",
        backend: Backend = "torch",
        compiled: bool = False,
    ) -> None:
        self.network, self.plan, self.device = network, plan, device
        self.number_format: NumberFormat = number_format
        self.overlap, self.windows = overlap, windows or default_batch_size(plan, device)
        self.save, self.folder, self.skips_empty = save, folder, should_skip_air(skip_air, plan)
        seen = plan.network_patch
        self.window = len(plan.channels), *seen
        self.window_bytes = forward_bytes(network, self.window, _steps(network, plan))
        self._faster = with_backend(backend, network, self.window, device, number_format, compiled)

    @classmethod
    def of(cls, trained: Trained, device: torch.device, number_format: NumberFormat) -> "Predictor":
        """The predictor of an opened checkpoint on this device."""
        return cls(trained.network.to(device), trained.plan, device, number_format)

    @classmethod
    def load(
        cls,
        *paths: Path | str,
        overlap: float = 0.5,
        windows: int | None = None,
        mirror_axes: Sequence[int] = (),
    ) -> "Predictor":
        """The predictor of a run's folder or checkpoint file, on the best device here; of several, their mean.

        The mean is also over the windows mirrored along `mirror_axes`, alone and together.

        Raises:
            ConfigError: if one is not a checkpoint, or they do not go together.
        """
        trained, device = (
            checkpoint.load_ensemble([Path(path) for path in paths], mirror_axes),
            choose_device("auto"),
        )
        network = trained.network.to(device)
        return cls(network, trained.plan, device, choose_format("auto", device), overlap, windows)

    def __call__(self, scan: ScanLike) -> Integer[np.ndarray, "x y z"]:
        """The mask of one scan: the dataset's own label ids on the scan's own grid, as `predict.py` writes it.

        Args:
            scan: a file, a file per channel, an image of nibabel's, or a `MetaTensor` or `Volume`
                `(x, y, z)` or `(c, x, y, z)`.

        Raises:
            DataError: if the scan cannot be used.
        """
        return self.predict(scan).mask(self.plan)

    def predict(self, scan: ScanLike) -> Prediction:
        """The mask of one scan with all that is known of it: its grid, maps, times.

        Takes and raises what a call does.
        """
        name = scan if isinstance(scan, str | Path) else "the scan"
        return self.segment(prepare_volume(as_volume(scan), self.plan, name))

    def ways(self, grid: Grid) -> list[InferencePlan]:
        """The ways to compute a scan with the memory that is here, the fastest first; found from its grid alone.

        Raises:
            DataError: if there is none.
        """
        rungs = fallbacks(self.device, self.windows)
        how = self.device, self.overlap, self.number_format, self.window_bytes
        return first_that_fits(
            rungs, [forecast(grid, self.plan, rung, *how) for rung in rungs], self.device
        )

    def with_network(self, network: nn.Module) -> "Predictor":
        """The same with another network, computed by PyTorch, that needs as much memory."""
        other = copy.copy(self)
        other.network = other._faster = network
        return other

    def segment(self, scan: PreparedScan, watch: Watch | None = None) -> Prediction:
        """Segments a scan that was read and prepared with this plan; with less memory where it turns out too scarce.

        Args:
            scan: that was prepared.
            watch: is called after each batch of windows.

        Raises:
            DataError: if the memory does not suffice in any way.
        """
        scarce = ""
        for rung in self.ways(scan.grid):
            note = f"memory was too scarce for {scarce}; done with {rung}" if scarce else ""
            try:
                return self._segment(scan, rung, note, watch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            scarce = str(
                rung
            )  # the error is gone here, and with it what its frames held of the memory
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise DataError(
            f"the memory of {self.device} was too scarce even for {scarce}: use one with more"
        )

    @torch.inference_mode()
    def _segment(
        self, scan: PreparedScan, rung: InferencePlan, note: str, watch: Watch | None
    ) -> Prediction:
        """Each slab leaves model space as soon as its windows are done."""
        start, plan, image = time.perf_counter(), self.plan, scan.image
        exclusive, seconds = plan.regions is None, {"network": 0.0}
        asked = SkipEmptyWindows(self._compute, plan.outputs, exclusive)
        if self.skips_empty and scan.body is not None:
            image = torch.cat([image, scan.body[None].to(image)])
        network = asked if self.skips_empty else self._compute
        total = count_windows(image.shape[1:], plan.patch, self.overlap)
        slabs = predict_slabs(
            _watched(network, total, watch) if watch else network,
            image.to(rung.where),
            plan.patch,
            plan.slice_axis,
            self.overlap,
            rung.windows,
            exclusive=exclusive,
        )
        ids = (
            None
            if plan.regions is None
            else [region_label(plan.regions, name) for name in plan.regions]
        )
        axis = slab_axis(image.shape[1:], plan.slice_axis)
        maps = Maps(scan.grid, axis, plan.outputs, exclusive, self.save, self.folder)
        labels = (
            model_space(plan)
            .leave(_timing(slabs, seconds), axis, scan.grid, ids, maps.watch)[0]
            .cpu()
            .numpy()
        )
        seconds["resample"] = time.perf_counter() - start - seconds["network"]
        return Prediction(labels, scan, maps, seconds, note, asked.skipped)

    def _compute(self, patches: torch.Tensor) -> torch.Tensor:
        with computing_in(self.number_format, self.device):
            return self._faster(patches.to(self.device))


def _steps(network: nn.Module, plan: Plan) -> list[int] | None:
    """Of what each edge of a window must be a multiple; None where a network may see the plan's windows alone."""
    each = network.networks if isinstance(network, Ensemble) else [network]
    return (
        [math.prod(way) for way in zip(*plan.strides, strict=True)]
        if all(isinstance(one, UNet) for one in each)
        else None
    )


def _watched(
    network: Callable[[torch.Tensor], torch.Tensor], total: int, watch: Watch
) -> Callable[..., torch.Tensor]:
    """The same network, which tells after each batch how many windows are done."""
    done = 0

    def computed(patches: torch.Tensor) -> torch.Tensor:
        nonlocal done
        logits = network(patches)
        done += len(patches)
        watch(done, total)
        return logits

    return computed


def _timing(slabs: Iterator[torch.Tensor], seconds: dict[str, float]) -> Iterator[torch.Tensor]:
    """Notes the wall time that the network takes for its slabs."""
    while True:
        start = time.perf_counter()
        slab = next(slabs, None)
        seconds["network"] += time.perf_counter() - start
        if slab is None:
            return
        yield slab


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes the wall time of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
