"""A case in, a mask on the scanner's grid out; no Lightning needed."""

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor, nn

from segpipe.accelerator import is_out_of_memory, place
from segpipe.checkpoint import Trained
from segpipe.data.prepare import PreparedScan, mask_dtype, prepare_volume
from segpipe.device import NumberFormat, choose_device, computing_in, to_device
from segpipe.ensembles import load_ensemble
from segpipe.errors import DataError
from segpipe.geometry import Grid
from segpipe.io.objects import Readable, ScanLike, as_file, as_volume
from segpipe.io.volumes import write_mask
from segpipe.nets.activation_memory import forward_bytes
from segpipe.plan import Plan
from segpipe.postprocess import PostProcess
from segpipe.prediction.backends import BackendRequest, with_backend
from segpipe.prediction.empty_windows import should_skip_air
from segpipe.prediction.inference_plan import (
    InferencePlan,
    Workload,
    default_batch_size,
    entrance,
    fallbacks,
    first_that_fits,
    format_for,
    size_multiples,
)
from segpipe.prediction.postprocessing import (
    clean,
    cleaning_arguments,
    threshold_factors,
)
from segpipe.prediction.prediction import Prediction as Prediction
from segpipe.prediction.segmenting import Segmenter
from segpipe.prediction.timing import ProgressCallback
from segpipe.quality import QualityModel


class Predictor:
    """Segments scans with one network.

    It may be called by several threads at once: a call changes nothing of it.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        plan: how a scan becomes what the network sees.
        device: the device on which the network computes.
        number_format: the number format in which it computes.
        overlap: share of a window that its neighbour covers too.
        batch_size: windows that are computed at once, where memory allows; None: what suits the
            device.
        save: those of `mask`, `probabilities` and `entropy` that a prediction holds; it always
            has the labels.
        folder: the folder of the files in which probabilities and entropy are gathered; None: the
            system's folder for temporary files.
        skip_air: whether windows of air are skipped (`should_skip_air`).
        backend: name of a registered backend.
        compiled: whether `torch.compile` is to make the network faster.
        postprocess: the post-processing of the masks.
        quality: models by which the quality of masks is predicted, one per network.
        seen: digests of the images that took part in its training.

    Raises:
        ConfigError: if `skip_air` or `backend` does not go with the network or the device, or
            `postprocess` names what the plan does not know.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        device: torch.device,
        number_format: NumberFormat = "float32",
        overlap: float = 0.5,
        batch_size: int | None = None,
        save: Sequence[str] = ("mask",),
        folder: Path | None = None,
        skip_air: Literal["auto"] | bool = "auto",
        backend: str = "torch",
        compiled: bool = False,
        postprocess: PostProcess | None = None,
        quality: Sequence[QualityModel] = (),
        seen: Collection[str] = (),
    ) -> None:
        self.quality = quality
        self.seen = seen
        self.measures_confidence = bool(quality)
        self.network = network
        self.plan = plan
        self.device = device
        self.number_format: NumberFormat = number_format
        self.overlap = overlap
        self.batch_size = batch_size or default_batch_size(plan, device)
        self._set_postprocess(postprocess or PostProcess())
        self.save = save
        self.folder = folder
        self.skips_air = should_skip_air(skip_air, plan)
        self.window = (len(plan.channels), *plan.network_patch)
        window_bytes = forward_bytes(network, self.window, size_multiples(network, plan))
        self.workload = Workload(plan, device, overlap, number_format, window_bytes)
        request = BackendRequest(self.window, device, number_format, compiled)
        self._computed_network = with_backend(backend, network, request)

    @classmethod
    def of(cls, trained: Trained, device: torch.device, number_format: NumberFormat) -> "Predictor":
        """Return the predictor of an opened checkpoint on this device."""
        return cls(place(trained.network, device), trained.plan, device, number_format)

    @classmethod
    def load(
        cls,
        *paths: Path | str,
        overlap: float = 0.5,
        batch_size: int | None = None,
        mirror_axes: Sequence[int] = (),
    ) -> "Predictor":
        """Return the predictor of a run's folder or checkpoint file, on the best device.

        Several of them give the mean of their probabilities. It is also taken over the windows
        mirrored along `mirror_axes`, alone and together.

        Raises:
            ConfigError: if one is not a checkpoint, or they do not go together.
        """
        trained = load_ensemble([Path(path) for path in paths], mirror_axes)
        device = choose_device("auto")
        network = place(trained.network, device)
        number_format = format_for(trained.plan, "auto", device)
        return cls(
            network,
            trained.plan,
            device,
            number_format,
            overlap,
            batch_size,
            postprocess=trained.postprocess,
            quality=trained.quality,
        )

    def __call__(self, scan: ScanLike) -> Integer[np.ndarray, "x y z"]:
        """Return the mask of one scan: the dataset's own label ids on the scan's own grid.

        It holds the same voxels as the file that `predict.py` writes.

        Args:
            scan: a path, a path per channel, the bytes of a NIfTI file or a file object of one,
                an image of nibabel's, or a `MetaTensor` or `Volume` `(x, y, z)` or `(c, x, y, z)`.

        Raises:
            DataError: if the scan cannot be used.
        """
        return self.predict(scan).mask(self.plan)

    def predict(self, scan: ScanLike) -> Prediction:
        """Return the prediction of one scan: its labels, post-processed, grid, maps and times.

        Args:
            scan: a scan as a call takes it.

        Raises:
            DataError: if the scan cannot be used.
        """
        name = scan if isinstance(scan, str | Path) else "the scan"
        volume = as_volume(scan, self.plan.nan)
        entrance = self.entrance(Grid.of(volume))
        return self.cleaned(self.segment(prepare_volume(volume, self.plan, name, entrance)))

    def cleaned(self, found: Prediction) -> Prediction:
        """Return a prediction with its labels post-processed."""
        return replace(found, labels=clean(found.labels, found.grid.voxel_ml, **self.cleaning))

    def save_mask(self, scan: ScanLike, path: Path | str) -> Prediction:
        """Write the mask of one scan as NIfTI, whole or not at all, and return the prediction.

        Args:
            scan: a scan as a call takes it.
            path: file to write; ends in `.nii.gz` or `.nii`.

        Raises:
            DataError: if the scan cannot be used, or the file does not read back as the mask.
        """
        if isinstance(scan, Readable):
            scan = scan.read()
        found = self.predict(scan)
        with as_file(scan) as source:
            write_mask(found.mask(self.plan), source, Path(path), mask_dtype(self.plan.labels))
        return found

    def fallbacks_for(self, grid: Grid) -> list[InferencePlan]:
        """Return the ways to compute a scan of this grid that fit the memory, the fastest first.

        Raises:
            DataError: if there is none.
        """
        plans = fallbacks(self.device, self.batch_size)
        forecasts = [self.workload.forecast(grid, plan) for plan in plans]
        return first_that_fits(plans, forecasts, self.device)

    def entrance(self, grid: Grid) -> torch.device:
        """Return the device on which scans of this grid enter model space.

        It is the GPU where it has room for them beside the windows.
        """
        return entrance(self.workload, grid, self.batch_size)

    def with_network(self, network: nn.Module) -> "Predictor":
        """Return a copy with another network that needs as much memory, computed by PyTorch."""
        other = copy.copy(self)
        other.network = network
        other._computed_network = network
        return other

    def with_confidence(self) -> "Predictor":
        """Return a copy whose predictions say how sure the network is of each target."""
        other = copy.copy(self)
        other.measures_confidence = True
        return other

    def with_postprocess(self, postprocess: PostProcess) -> "Predictor":
        """Return a copy with another post-processing of the masks.

        Raises:
            ConfigError: if it names what the plan does not know.
        """
        other = copy.copy(self)
        other._set_postprocess(postprocess)
        return other

    def segment(self, scan: PreparedScan, progress: ProgressCallback | None = None) -> Prediction:
        """Return the prediction of a scan that was prepared with this plan; no part is removed.

        Where memory turns out too scarce, the scan is computed again in a way that needs less.

        Args:
            scan: the prepared scan.
            progress: is called after each batch of windows.

        Raises:
            DataError: if the memory does not suffice in any way.
        """
        segmenter = self._segmenter()
        failed = ""
        for inference_plan in self.fallbacks_for(scan.grid):
            note = ""
            if failed:
                note = f"memory was too scarce for {failed}; done with {inference_plan}"
            try:
                return segmenter(scan, inference_plan, note, progress)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            failed = str(inference_plan)
            # the error is gone here, and with it what its frames held of the memory
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise DataError(
            f"the memory of {self.device} was too scarce even for {failed}: use one with more"
        )

    def _segmenter(self) -> Segmenter:
        return Segmenter(
            compute=self._compute,
            network=self._computed_network,
            plan=self.plan,
            device=self.device,
            overlap=self.overlap,
            skips_air=self.skips_air,
            save=self.save,
            folder=self.folder,
            factors=self.factors,
            temperature=self.postprocess.temperature,
            measures_confidence=self.measures_confidence,
        )

    def _set_postprocess(self, postprocess: PostProcess) -> None:
        self.postprocess = postprocess
        self.cleaning = cleaning_arguments(postprocess, self.plan.labels)
        self.factors = threshold_factors(self.plan, postprocess.thresholds)

    def _compute(self, patches: Tensor) -> Tensor:
        """Return the logits of patches."""
        with computing_in(self.number_format, self.device):
            return self._computed_network(to_device(patches, self.device))
