"""A case in, a mask on the scanner's grid out; no Lightning needed."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer
from torch import nn

from segpipe import checkpoint
from segpipe.data.prepare import PreparedScan, model_space, outside_ids, prepare_volume
from segpipe.device import NumberFormat, choose_device, choose_format, computing_in
from segpipe.geometry import Grid
from segpipe.plan import Plan
from segpipe.regions import own_id
from segpipe.volumes import ScanLike, as_volume
from segpipe.windows import predict_slabs, slab_axis


@dataclass(frozen=True)
class Prediction:
    """What a network says of one scan.

    Attributes:
        labels: ids inside (0, 1, 2 ...) on the scan's own grid, shape `(x, y, z)`, uint8.
        scan: the scan as the network saw it.
        seconds: wall time of each stage.
    """

    labels: Integer[np.ndarray, "x y z"]
    scan: PreparedScan
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The scanner's grid."""
        return self.scan.grid


class Predictor:
    """Segments scans with one network.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        plan: how a scan becomes what the network sees.
        device: where it computes.
        number_format: in what it computes.
        overlap: share of a window that its neighbour sees too.
        windows: how many windows are computed at once.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        device: torch.device,
        number_format: NumberFormat = "float32",
        overlap: float = 0.5,
        windows: int = 4,
    ) -> None:
        self.network, self.plan, self.device = network, plan, device
        self.number_format: NumberFormat = number_format
        self.overlap, self.windows = overlap, windows

    @classmethod
    def load(
        cls, *paths: Path | str, overlap: float = 0.5, windows: int = 4, mirror_axes: Sequence[int] = ()
    ) -> "Predictor":
        """The predictor of a run's folder or checkpoint file, on the best device here; of several, their mean.

        The mean is also over the windows mirrored along `mirror_axes`, alone and together.

        Raises:
            ConfigError: if one is not a checkpoint, or they do not go together.
        """
        trained, device = checkpoint.load_ensemble([Path(path) for path in paths], mirror_axes), choose_device("auto")
        network = trained.network.to(device)
        return cls(network, trained.plan, device, choose_format("auto", device), overlap, windows)

    def __call__(self, scan: ScanLike) -> Prediction:
        """Segments one scan; `mask` gives the dataset's own label ids of the answer.

        Args:
            scan: a file, a file per channel, an image of nibabel's, or a `MetaTensor` `(x, y, z)` or `(c, x, y, z)`.

        Raises:
            DataError: if the scan cannot be used.
        """
        name = scan if isinstance(scan, str | Path) else "the scan"
        return self.segment(prepare_volume(as_volume(scan), self.plan, name))

    def segment(self, scan: PreparedScan) -> Prediction:
        """Segments a scan that was read and prepared with this plan."""
        seconds: dict[str, float] = {}
        return Prediction(self._labels(scan, seconds), scan, seconds)

    @torch.inference_mode()
    def _labels(self, scan: PreparedScan, seconds: dict[str, float]) -> np.ndarray:
        """Ids inside on the scan's own grid; each slab leaves model space as soon as its windows are done."""
        start, regions, image = time.perf_counter(), self.plan.regions, scan.image.to(self.device)
        slabs = predict_slabs(
            self._compute,
            image,
            self.plan.patch,
            self.plan.slice_axis,
            self.overlap,
            self.windows,
            exclusive=regions is None,
        )
        ids = None if regions is None else [own_id(regions, name) for name in regions]
        axis = slab_axis(image.shape[1:], self.plan.slice_axis)
        seconds["network"] = 0.0
        labels = model_space(self.plan).leave(_timing(slabs, seconds), axis, scan.grid, ids)[0].cpu().numpy()
        seconds["resample"] = time.perf_counter() - start - seconds["network"]
        return labels

    def _compute(self, patches: torch.Tensor) -> torch.Tensor:
        with computing_in(self.number_format, self.device):
            return self.network(patches)

    def mask(self, prediction: Prediction) -> np.ndarray:
        """The dataset's own label ids, in the one integer type that all masks of its label set share."""
        return outside_ids(prediction.labels, self.plan.labels)


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
