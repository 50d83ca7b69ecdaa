"""What is taken away from a mask because no organ looks so: small parts, and all parts but the largest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from segpipe.config.predict import Predict
from segpipe.errors import ConfigError


def clean(
    labels: Integer[np.ndarray, "x y z"],
    voxel_ml: float,
    keep_largest: Sequence[int] = (),
    min_volume_ml: Mapping[int, float] | None = None,
    keep: Sequence[int] | None = None,
) -> Integer[np.ndarray, "x y z"]:
    """A copy of a mask without what is asked to go; parts touch by a face, an edge or a corner.

    Args:
        labels: ids, 0 is the background.
        voxel_ml: volume of a voxel, mL.
        keep_largest: ids of which only the largest part stays.
        min_volume_ml: per id the least volume of a part that stays, mL.
        keep: ids that stay at all; None: every one.
    """
    least = min_volume_ml or {}
    if not keep_largest and not least and keep is None:
        return labels.copy()
    from scipy.ndimage import find_objects  # takes long to import, and is often not needed
    from scipy.ndimage import label as components

    cleaned = (
        labels if keep is None else np.where(np.isin(labels, keep), labels, 0).astype(labels.dtype)
    )
    cleaned = cleaned.copy()
    for number, box in enumerate(find_objects(cleaned.astype(np.int32)), start=1):
        if box is None or not (number in keep_largest or number in least):
            continue
        inside = cleaned[box]
        parts: Any = components(inside == number, np.ones((3, 3, 3)))[0]  # type: ignore[index]
        voxels = np.bincount(parts.ravel())
        voxels[0] = 0
        small = voxels * voxel_ml < least.get(number, 0)
        if number in keep_largest:
            small[np.arange(len(voxels)) != voxels.argmax()] = True
        small[0] = False
        inside[small[parts]] = 0
    return cleaned


def cleaning(
    options: Predict, labels: Mapping[str, int]
) -> tuple[list[int], dict[int, float], list[int] | None]:
    """The arguments of `clean`: ids for names.

    Raises:
        ConfigError: for a name that is no label.
    """
    names, least = list(labels)[1:], options.min_volume_ml
    each = least if isinstance(least, dict) else dict.fromkeys(names, least) if least else {}
    places = ids_of(list(each), labels, "min_volume_ml")
    kept = None if options.labels is None else ids_of(options.labels, labels, "labels")
    return (
        ids_of(options.keep_largest, labels, "keep_largest"),
        dict(zip(places, each.values(), strict=True)),
        kept,
    )


def ids_of(names: Sequence[str], labels: Mapping[str, int], key: str) -> list[int]:
    """The ids inside of labels by their names.

    Raises:
        ConfigError: for a name that the network does not know.
    """
    known = list(labels)
    if strange := [name for name in names if name not in known[1:]]:
        raise ConfigError(
            f"{key}: {strange[0]} is no label of the network; it knows {', '.join(known[1:])}"
        )
    return [known.index(name) for name in names]
