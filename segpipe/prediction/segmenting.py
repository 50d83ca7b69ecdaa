"""From a prepared scan to its prediction: windows, slab by slab, then labels on the scan's grid."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segpipe import nnunet_rules
from segpipe.data.prepare import PreparedScan, model_space
from segpipe.device import to_device
from segpipe.nets.ensemble import measuring
from segpipe.plan import Plan
from segpipe.prediction.confidence import Confidence
from segpipe.prediction.empty_windows import SkipEmptyWindows
from segpipe.prediction.inference_plan import InferencePlan
from segpipe.prediction.maps import Maps
from segpipe.prediction.postprocessing import with_thresholds
from segpipe.prediction.prediction import Prediction, region_ids
from segpipe.prediction.timing import ProgressCallback, Stopwatch, reporting, timed_slabs
from segpipe.windows import Windowing, predict_slabs, slab_axis, softmax


@dataclass(frozen=True)
class Segmenter:
    """Segments prepared scans.

    Attributes:
        compute: maps windows `(b, c, *space)` to logits `(b, k, *space)`.
        network: the network that `compute` runs; of an ensemble the agreement of its members is
            measured.
        plan: how a scan becomes what the network sees.
        device: the device on which the network computes.
        overlap: share of a window that its neighbour covers too.
        skips_air: whether windows of air are skipped.
        save: those of `mask`, `probabilities` and `entropy` that a prediction holds.
        folder: the folder of the files in which probabilities and entropy are gathered.
        factors: the factors of the probabilities, before the label is decided.
        temperature: the divisor of the logits before probabilities and entropy are kept.
        measures_confidence: whether it is measured how sure the network is.
    """

    compute: Callable[[Tensor], Tensor]
    network: nn.Module
    plan: Plan
    device: torch.device
    overlap: float
    skips_air: bool
    save: Sequence[str]
    folder: Path | None
    factors: Sequence[float]
    temperature: float
    measures_confidence: bool

    @torch.inference_mode()
    def __call__(
        self,
        scan: PreparedScan,
        inference_plan: InferencePlan,
        note: str,
        progress: ProgressCallback | None,
    ) -> Prediction:
        """Return the prediction of a scan, computed in one way; slab by slab."""
        start = time.perf_counter()
        stopwatch = Stopwatch(self.device)
        plan = self.plan
        skipping = SkipEmptyWindows(self.compute, plan.outputs, plan.regions is None)
        network: Callable[[Tensor], Tensor] = skipping if self.skips_air else self.compute
        axis = slab_axis(scan.image.shape[1:], plan.slice_axis)
        slabs = self._slabs(network, scan, inference_plan, progress)
        space = model_space(plan)
        maps = self._maps(scan, axis)
        observer = with_thresholds(maps.observe, self.factors)
        with self._confidence(scan, inference_plan) as confidence:
            if confidence is not None:
                slabs = confidence.watch(slabs)
            labels = space.to_native(
                timed_slabs(slabs, stopwatch),
                axis,
                scan.seen_grid,
                region_ids(plan),
                observer,
                maps.block_voxels,
            )
        found = scan.whole(labels[0].cpu().numpy())
        network_seconds = stopwatch.read()
        rest = time.perf_counter() - start - network_seconds
        seconds = {"network": network_seconds, "resample": max(0.0, rest)}
        return Prediction(found, scan, maps, seconds, note, skipping.skipped, confidence)

    def _maps(self, scan: PreparedScan, axis: int) -> Maps:
        """Return what gathers the probabilities and the entropy that are to be saved."""
        return Maps(
            scan.grid,
            axis,
            self.plan.outputs,
            self.plan.regions is None,
            self.save,
            folder=self.folder,
            orientation=model_space(self.plan).orientation(scan.grid),
            temperature=self.temperature,
            box=scan.box,
        )

    @contextmanager
    def _confidence(
        self, scan: PreparedScan, inference_plan: InferencePlan
    ) -> Iterator[Confidence | None]:
        """Give what measures how sure the network is, where that is asked."""
        if not self.measures_confidence:
            yield None
            return
        plan = self.plan
        channels = to_device(scan.image[: len(plan.channels)], inference_plan.blending)
        axis = slab_axis(scan.image.shape[1:], plan.slice_axis)
        with measuring(self.network) as agreement:
            yield Confidence(
                channels, axis, plan.regions is None, agreement, of_logits=plan.rules == "nnunet"
            )

    def _slabs(
        self,
        network: Callable[[Tensor], Tensor],
        scan: PreparedScan,
        inference_plan: InferencePlan,
        progress: ProgressCallback | None,
    ) -> Iterator[Tensor]:
        """Return the slabs of a scan, whose windows are computed as they are asked for."""
        image = self._with_body(scan)
        windowing = windowing_of(self.plan, self.overlap)
        if progress is not None:
            network = reporting(network, windowing.count(image.shape[1:]), progress)
        blended = to_device(image, inference_plan.blending)
        return predict_slabs(network, blended, windowing, inference_plan.batch_size)

    def _with_body(self, scan: PreparedScan) -> Tensor:
        """Return the image, and the channel that `SkipEmptyWindows` needs where air is skipped."""
        if not self.skips_air or scan.body is None:
            return scan.image
        return torch.cat([scan.image, scan.body[None].to(scan.image)])


def windowing_of(plan: Plan, overlap: float) -> Windowing:
    """Return how windows cover a volume by the rules of a plan."""
    if plan.rules == "nnunet":
        return Windowing(
            plan.patch,
            plan.slice_axis,
            overlap,
            activation=None,
            starts_along=nnunet_rules.window_starts,
            weights_of=nnunet_rules.window_weights,
        )
    activation = softmax if plan.regions is None else torch.sigmoid
    return Windowing(plan.patch, plan.slice_axis, overlap, activation)
