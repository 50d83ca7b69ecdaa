"""What is measured of a scan and its mask, from which the quality of the mask is predicted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from segpipe.mask_pairs import Targets, box_of
from segpipe.plan import Plan
from segpipe.prediction.postprocessing import NEIGHBOURS
from segpipe.prediction.prediction import Prediction

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SAMPLED = 20_000  # voxels of a channel of which quantiles are taken


def measure_quality(prediction: Prediction, plan: Plan) -> dict[str, float]:
    """Return measurements by name, `kind/target` or `kind/channel`; what is not there is left out.

    `unsure` is 1 minus the expected Dice of the target, and `disagree` 1 minus that of the
    members of an ensemble, or of mirrored windows, with their mean. `volume`, `shape` (surface to
    volume) and `parts` are logarithms. `edge` is the share of the mask's surface on the border of
    the scan.
    `inside` is the mean normalised intensity in the mask, `intensity` a quantile of the scan's, and
    `detail` the logarithm of the mean difference of neighbouring voxels.

    Args:
        prediction: a prediction with its confidence; its labels may be post-processed.
        plan: the plan of the network.
    """
    measured = _image_measures(prediction.scan.image)
    if prediction.confidence is not None:
        unsure = prediction.confidence.unsureness
        means = prediction.confidence.intensities
        for name, value, channels in zip(plan.targets, unsure, means, strict=True):
            measured[f"unsure/{name}"] = value
            for number, mean in enumerate(channels):
                measured[f"inside/{name}/{number}"] = mean
        for name, value in zip(plan.targets, prediction.confidence.disagreement, strict=False):
            measured[f"disagree/{name}"] = value
    measured |= _all_mask_measures(prediction.labels, plan.targets, prediction.grid.voxel_ml)
    return {name: value for name, value in measured.items() if np.isfinite(value)}


def _image_measures(image: Float[Tensor, "c x y z"]) -> dict[str, float]:
    measured: dict[str, float] = {}
    for number, channel in enumerate(image):
        flat = channel.flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED)].float().cpu()
        values = torch.quantile(sample, torch.tensor(QUANTILES)).tolist()
        for share, value in zip(QUANTILES, values, strict=True):
            measured[f"intensity/{number}/{share:g}"] = value
        steps = [float(channel.diff(dim=axis).abs().mean()) for axis in _long_axes(channel)]
        if steps:
            measured[f"detail/{number}"] = float(np.log(np.mean(steps) + 1e-6))
    return measured


def _long_axes(channel: Float[Tensor, "x y z"]) -> list[int]:
    return [axis for axis, size in enumerate(channel.shape) if size > 1]


def _all_mask_measures(
    labels: Integer[np.ndarray, "x y z"], targets: Targets, voxel_ml: float
) -> dict[str, float]:
    """Return volume, shape, parts and edge of each target; nothing of one that is empty."""
    from scipy.ndimage import find_objects

    boxes = [find_objects(labels)]
    flat = tuple(axis for axis, size in enumerate(labels.shape) if size == 1)
    measured: dict[str, float] = {}
    for name, ids in targets.items():
        box = box_of(ids, boxes, labels.ndim)
        mask = np.isin(labels[box], ids)
        if mask.any():
            ends = []
            for side, size in zip(box, labels.shape, strict=True):
                ends.append((side.start == 0, side.stop == size))
            for kind, value in _mask_measures(mask, ends, flat, voxel_ml).items():
                measured[f"{kind}/{name}"] = value
    return measured


def _mask_measures(
    mask: Bool[np.ndarray, "x y z"],
    ends: Sequence[tuple[bool, bool]],
    flat: tuple[int, ...],
    voxel_ml: float,
) -> dict[str, float]:
    """Return the measurements of a mask by kind.

    Args:
        mask: the mask in the smallest box that holds it.
        ends: for each axis, whether the box begins and ends where the scan does.
        flat: the axes of one voxel, as an image has.
        voxel_ml: volume of a voxel, mL.
    """
    from scipy.ndimage import label

    voxels = np.count_nonzero(mask)
    found: Any = label(mask, NEIGHBOURS)
    surface = 0
    border = 0
    for axis in range(mask.ndim):
        if axis in flat:
            continue
        margin = [(1, 1) if other == axis else (0, 0) for other in range(mask.ndim)]
        surface += np.count_nonzero(np.diff(np.pad(mask, margin), axis=axis))
        for end, is_at_border in zip((0, -1), ends[axis], strict=True):
            border += is_at_border * np.count_nonzero(mask.take(end, axis=axis))
    power = 1 - 1 / max(1, mask.ndim - len(flat))
    return {
        "volume": float(np.log(voxels * voxel_ml)),
        "shape": float(np.log(surface / voxels**power)) if surface else 0.0,
        "parts": float(np.log(found[1])),
        "edge": border / max(1, surface),
    }
