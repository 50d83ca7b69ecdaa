"""What is measured of a scan and its mask, from which the quality of the mask is predicted."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
        prediction: with its confidence; its labels may be post-processed.
        plan: of the network.
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
    for name, ids in plan.targets.items():
        mask = np.isin(prediction.labels, ids)
        measured |= _mask_measures(mask, name, prediction.grid.voxel_ml)
    return {name: value for name, value in measured.items() if np.isfinite(value)}


def _image_measures(image: Float[Tensor, "c x y z"]) -> dict[str, float]:
    measured: dict[str, float] = {}
    for number, channel in enumerate(image):
        flat = channel.flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED)].float()
        values = torch.quantile(sample, torch.tensor(QUANTILES)).tolist()
        for share, value in zip(QUANTILES, values, strict=True):
            measured[f"intensity/{number}/{share:g}"] = value
        steps = [float(channel.diff(dim=axis).abs().mean()) for axis in _long_axes(channel)]
        if steps:
            measured[f"detail/{number}"] = float(np.log(np.mean(steps) + 1e-6))
    return measured


def _long_axes(channel: Float[Tensor, "x y z"]) -> list[int]:
    return [axis for axis, size in enumerate(channel.shape) if size > 1]


def _mask_measures(mask: Bool[np.ndarray, "x y z"], name: str, voxel_ml: float) -> dict[str, float]:
    """Return volume, shape, parts and edge of a mask; nothing of one that is empty."""
    from scipy.ndimage import find_objects, label

    boxes = find_objects(mask.view(np.uint8))
    if not boxes:
        return {}
    flat = tuple(axis for axis, size in enumerate(mask.shape) if size == 1)
    inside = mask[boxes[0]]
    voxels = np.count_nonzero(inside)
    found: Any = label(inside, NEIGHBOURS)
    surface, border = _surface(mask, flat)
    axes = mask.ndim - len(flat)
    return {
        f"volume/{name}": float(np.log(voxels * voxel_ml)),
        f"shape/{name}": float(np.log(surface / voxels ** ((axes - 1) / max(axes, 1)))),
        f"parts/{name}": float(np.log(found[1])),
        f"edge/{name}": border / surface,
    }


def _surface(mask: Bool[np.ndarray, "x y z"], flat: tuple[int, ...]) -> tuple[int, int]:
    """Return the faces of voxels between mask and background or border, and those at the border."""
    surface = 0
    border = 0
    for axis in range(mask.ndim):
        if axis in flat:
            continue
        surface += int(np.count_nonzero(np.diff(mask, axis=axis)))
        for end in (0, -1):
            border += int(np.count_nonzero(mask.take(end, axis=axis)))
    return surface + border, border
