"""The sentences on a training, for a paragraph on methods."""

from collections.abc import Iterator
from typing import Any

from segpipe.axes import AXES
from segpipe.config.train import Loss
from segpipe.registry import AUGMENTATIONS
from segpipe.reporting.methods_record import MethodsRecord, source_name
from segpipe.reporting.methods_words import (
    LOSSES,
    OPTIMISERS,
    SCHEDULES,
    listing,
    words_of,
)
from segpipe.text import count, visible


def training(record: MethodsRecord) -> Iterator[str]:
    """Yield the sentences on how the weights came about."""
    if record.is_imported:
        yield (
            "Its weights were trained by nnU-Net [@isensee2021nnunet] and converted; how they were "
            "trained is not stored with them."
        )
        return
    yield _start(record)
    yield _budget(record)
    yield _optimiser(record)
    yield _augmentation(record.config["augment"])
    yield _choice(record)


def _start(record: MethodsRecord) -> str:
    if record.initial is None:
        return ""
    source = record.initial
    text = f"Training started from the weights of {visible(source_name(source))}"
    data = f" on {visible(source.data)}" if source.data else ""
    text += f", which had been trained for {count(source.step, 'step')}{data}"
    options = record.config.get("init") or {}
    if options.get("freeze") == "encoder":
        text += "; the encoder was frozen"
    if options.get("lr_scale", 1.0) != 1.0:
        text += f"; loaded weights learnt at {options['lr_scale']:g} times the learning rate"
    return f"{text}."


def _budget(record: MethodsRecord) -> str:
    batch = f"{count(record.plan.batch, 'patch').replace('patchs', 'patches')} a step"
    share = record.config["plan"]["foreground"]
    centred = f"{100 * share:g} % of them centred on a labelled voxel"
    if record.is_best:
        return f"The weights are those after {count(record.step, 'step')} with {batch}, {centred}."
    return f"It was trained for {count(record.step, 'step')} with {batch}, {centred}."


def _optimiser(record: MethodsRecord) -> str:
    optim = record.config["optim"]
    parts = [f"highest learning rate {optim['lr']:g}", f"weight decay {optim['weight_decay']:g}"]
    parts.append(SCHEDULES[optim["schedule"]])
    if optim["warmup"]:
        parts.append(f"warm-up over {100 * optim['warmup']:g} % of the budget")
    if optim["clip"] is not None:
        parts.append(f"gradients clipped to a norm of {optim['clip']:g}")
    if optim["ema"] is not None:
        parts.append(f"a running mean of the weights with decay {optim['ema']:g}")
    text = f"The optimiser was {words_of(OPTIMISERS, optim['name'])} ({', '.join(parts)})"
    text += f"; the loss was {_loss(record.config['loss'])}"
    if record.config["model"].get("deep_supervision"):
        text += ", with deep supervision [@lee2015supervised]"
    return f"{text}; the seed was {record.config['seed']}."


def _loss(loss: dict[str, Any]) -> str:
    terms: list[str] = []
    for name, weight in loss.items():
        if weight and name not in Loss.model_fields:  # the others are options of the terms
            factor = "" if weight == 1 else f"{weight:g} times "
            terms.append(f"{factor}{words_of(LOSSES, name)}")
    return f"the sum of {listing(terms)}" if len(terms) > 1 else listing(terms)


def _augmentation(augment: dict[str, Any]) -> str:
    """Return the changes of patches with their probabilities."""
    parts: list[str] = []
    if augment["mirror_axes"]:
        axes = listing([AXES[axis] for axis in augment["mirror_axes"]])
        parts.append(f"mirroring {axes}")
    if augment["affine"]:
        turn = f"rotation by up to {augment['rotate_deg']:g}° and scaling by up to "
        parts.append(f"{turn}{100 * augment['scale']:g} % ({augment['affine']:g})")
    if augment["elastic"]:
        parts.append(f"elastic deformation ({augment['elastic']:g})")
    entries = AUGMENTATIONS.entries()
    for name, probability in augment.items():
        if name in entries and probability:
            parts.append(f"{entries[name].help} ({probability:g})")
    if not parts:
        return "Patches were not augmented."
    return f"Patches were augmented, with the probabilities in brackets: {', '.join(parts)}."


def _choice(record: MethodsRecord) -> str:
    if record.validations is None or record.validations < 2:
        return ""
    return (
        f"Whole validation scans were segmented {record.validations} times in between, and the "
        "weights with the highest mean Dice were kept."
    )
