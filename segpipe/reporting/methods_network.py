"""The sentences on a network, for a paragraph on methods."""

from collections.abc import Sequence
from typing import Any

from segpipe.axes import AXES
from segpipe.reporting.methods_record import MethodsRecord
from segpipe.reporting.methods_words import (
    ACTIVATIONS,
    LONG_SKIPS,
    SHORT_SKIPS,
    distinct,
    listing,
    product,
    words_of,
)

UNET = {2: "[@ronneberger2015unet]", 3: "[@cicek2016unet3d]"}


def network(record: MethodsRecord) -> str:
    """Return the sentences on the network and what it sees."""
    model = record.config["model"]
    size = ""
    if record.parameters is not None:
        size = f" with {record.parameters:,} parameters"
    if model["network"] != "unet":
        return f"The network was {_foreign(model)}{size}. {_sight(record)}"
    levels = _levels(model["channels"] or record.plan.widths or [], record)
    return f"The network was a {model['dims']}D U-Net {UNET[model['dims']]}{size}: {levels}. " + (
        f"It had {_parts(model)}. {_sight(record)}"
    )


def _foreign(model: dict[str, Any]) -> str:
    name = f"{model['network']} in {model['dims']}D"
    is_monai = "arguments" in model and "." not in model["network"]
    return f"{name} [@cardoso2022monai]" if is_monai else name


def _levels(channels: Sequence[int], record: MethodsRecord) -> str:
    strides = [product(stride) for stride in record.plan.strides]
    text = f"{len(channels)} levels of {listing(list(map(str, channels)))} channels"
    if len(set(strides)) == 1:
        return f"{text}, each level {strides[0]} times coarser than the last"
    return f"{text}, downsampled by {listing(strides)}"


def _parts(model: dict[str, Any]) -> str:
    parts = distinct(LONG_SKIPS, model["long_skips"])
    parts += distinct(SHORT_SKIPS, model["short_skips"])
    if model["norm"] != "none":
        parts.append(f"{model['norm']} normalisation")
    parts.append(f"{words_of(ACTIVATIONS, model['activation'])} activations")
    if model["dropout"]:
        parts.append(f"dropout of {model['dropout']:g}")
    return listing(parts)


def _sight(record: MethodsRecord) -> str:
    """Return what the network saw at once."""
    plan = record.plan
    if plan.slice_axis is None:
        what = f"patches of {product(plan.patch)} voxels"
    else:
        what = f"patches of {product(plan.network_patch)} pixels"
        if plan.slices == "scan":
            what += " of slices as each scan was acquired"
        elif plan.unit != "px2":
            what += f" of slices across the {AXES[plan.slice_axis]} axis"
    return f"It saw {what}."
