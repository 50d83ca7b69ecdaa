"""Remove from a mask what no organ looks like: small components, and all but the largest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from segpipe.config.predict import Predict
from segpipe.errors import ConfigError

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
        min_volume_ml: per label the smallest volume of a component that stays, mL.
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


def cleaning_arguments(options: Predict, labels: Mapping[str, int]) -> dict[str, Any]:
    """Return the arguments of `clean` that the options name.

    Raises:
        ConfigError: for a name that is not a label.
    """
    requested = options.min_volume_ml
    if not isinstance(requested, dict):
        requested = dict.fromkeys(list(labels)[1:], requested) if requested else {}
    indices = label_indices(list(requested), labels, "min_volume_ml")
    keep = None
    if options.labels is not None:
        keep = label_indices(options.labels, labels, "labels")
    return {
        "keep_largest": label_indices(options.keep_largest, labels, "keep_largest"),
        "min_volume_ml": dict(zip(indices, requested.values(), strict=True)),
        "keep": keep,
    }


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
