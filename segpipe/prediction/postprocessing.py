"""Remove from a mask what no organ looks like: small components, and all but the largest."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer
from torch import Tensor

from segpipe.config.predict import Predict
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.postprocess import USUAL, PostProcess
from segpipe.resampling import ProbabilityObserver
from segpipe.text import nearest

NEIGHBOURS = np.ones((3, 3, 3))  # voxels of a component touch by a face, an edge or a corner


def clean(
    labels: Integer[np.ndarray, "x y z"],
    voxel_ml: float,
    keep_largest: Sequence[int] = (),
    min_volume_ml: Mapping[int, float] | None = None,
    keep: Sequence[int] | None = None,
) -> Integer[np.ndarray, "x y z"]:
    """Return a copy of a mask without the components that are to be removed.

    Args:
        labels: indices of labels, 0 is the background.
        voxel_ml: volume of a voxel, mL.
        keep_largest: labels of which only the largest component stays.
        min_volume_ml: the smallest volume of a component that stays, per label, mL.
        keep: labels that stay at all; None: every one.
    """
    min_volumes = min_volume_ml or {}
    cleaned = labels.copy()
    if keep is not None:
        cleaned[~np.isin(labels, keep)] = 0
    if not keep_largest and not min_volumes:
        return cleaned
    from scipy.ndimage import find_objects  # takes long to import, and is often not needed

    for label, box in enumerate(find_objects(cleaned.astype(np.int32)), start=1):
        largest_only = label in keep_largest
        if box is not None and (largest_only or label in min_volumes):
            _remove_components(
                cleaned[box], label, voxel_ml, min_volumes.get(label, 0.0), largest_only
            )
    return cleaned


def _remove_components(
    box: Integer[np.ndarray, "x y z"],
    label: int,
    voxel_ml: float,
    min_volume_ml: float,
    largest_only: bool,
) -> None:
    """Remove, in place, the components of a label that are too small or not the largest."""
    from scipy.ndimage import label as label_components

    components: Any = label_components(box == label, NEIGHBOURS)[0]  # type: ignore[index]
    voxels = np.bincount(components.ravel())
    voxels[0] = 0
    removed = voxels * voxel_ml < min_volume_ml
    if largest_only:
        removed[np.arange(len(voxels)) != voxels.argmax()] = True
    removed[0] = False
    box[removed[components]] = 0


def requested(options: Predict, chosen: PostProcess, labels: Mapping[str, int]) -> PostProcess:
    """Return the post-processing of a checkpoint, with what the options name over it.

    Args:
        options: the options; their `keep_largest` is added, their `min_volume_ml` and `thresholds`
            take the place of those of the same labels, and their `temperature` takes the other's
            place.
        chosen: the post-processing of the checkpoint.
        labels: the labels of the plan.
    """
    volumes = options.min_volume_ml
    if not isinstance(volumes, dict):
        volumes = dict.fromkeys(list(labels)[1:], volumes) if volumes else {}
    largest = dict.fromkeys([*chosen.keep_largest, *options.keep_largest])
    return PostProcess(
        thresholds=chosen.thresholds | (options.thresholds or {}),
        keep_largest=list(largest),
        min_volume_ml=chosen.min_volume_ml | volumes,
        temperature=options.temperature or chosen.temperature,
    )


def cleaning_arguments(
    postprocess: PostProcess, labels: Mapping[str, int], keep: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the arguments of `clean` that names of labels stand for.

    Args:
        postprocess: the post-processing of the masks.
        labels: the labels of the plan.
        keep: labels that masks show; None: all.

    Raises:
        ConfigError: for a name that is not a label.
    """
    volumes = postprocess.min_volume_ml
    indices = label_indices(list(volumes), labels, "min_volume_ml")
    kept = None if keep is None else label_indices(keep, labels, "labels")
    return {
        "keep_largest": label_indices(postprocess.keep_largest, labels, "keep_largest"),
        "min_volume_ml": dict(zip(indices, volumes.values(), strict=True)),
        "keep": kept,
    }


def with_thresholds(observe: ProbabilityObserver, factors: Sequence[float]) -> ProbabilityObserver:
    """Return an observer after which the most probable label is the one that thresholds choose.

    What is observed, and saved, are the probabilities themselves; what is handed on are these times
    `threshold_factors`.
    """

    def scaled(rows: slice, classes: Iterable[Tensor]) -> Iterator[Tensor]:
        for probability, factor in zip(observe(rows, classes), factors, strict=True):
            yield probability if factor == 1 else probability * factor

    return scaled


def threshold_factors(plan: Plan, thresholds: Mapping[str, float]) -> list[float]:
    """Return for each channel the factor of its probability before the label is decided.

    Of two labels, the one with the threshold t then wins where its probability is above t; a region
    is taken where it is above t.

    Raises:
        ConfigError: for a name that is neither a label nor a region.
    """
    names = list(plan.regions or plan.label_names)
    for name in thresholds:
        _check_threshold(name, names)
    factors = [] if plan.regions else [1.0]  # of the background
    for name in names:
        threshold = thresholds.get(name, USUAL)
        factors.append(USUAL / threshold if plan.regions else (1 - threshold) / threshold)
    return factors


def thresholds_of(plan: Plan, postprocess: PostProcess) -> dict[str, float]:
    """Return the thresholds of a network's own labels or regions."""
    names = list(plan.regions or plan.label_names)
    found = {}
    for name, threshold in postprocess.thresholds.items():
        if name in names:
            found[name] = threshold
    return found


def check_thresholds(plans: Iterable[Plan], postprocess: PostProcess) -> None:
    """Check that each threshold is of a label or region of one of several networks.

    Raises:
        ConfigError: for a name that is of none.
    """
    known: dict[str, None] = {}
    for plan in plans:
        known |= dict.fromkeys(plan.regions or plan.label_names)
    for name in postprocess.thresholds:
        _check_threshold(name, list(known))


def _check_threshold(name: str, names: Sequence[str]) -> None:
    """Refuse a threshold of what is none of these names.

    Raises:
        ConfigError: naming the nearest.
    """
    if name not in names:
        raise ConfigError(
            f"thresholds: {name} is none of {', '.join(names)}.{nearest(name, names)}"
        )


def label_indices(names: Sequence[str], labels: Mapping[str, int], key: str) -> list[int]:
    """Return the indices of labels by their names.

    Raises:
        ConfigError: for a name that the network does not know.
    """
    indices = {name: index for index, name in enumerate(labels) if index > 0}
    for name in names:
        if name not in indices:
            raise ConfigError(
                f"{key}: {name} is no label of the network; it knows {', '.join(indices)}"
            )
    return [indices[name] for name in names]
