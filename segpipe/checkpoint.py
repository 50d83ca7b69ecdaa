"""Weights with the config and plan that made them, in one file; each is useless without the others.

Networks with `long_skips=none` and `add` have weights of the same names and shapes, so weights
alone would load into the wrong one without an error. The file is Lightning's, so that training
resumes from it; what prediction needs is stored in it under `segpipe`, as plain values that
`torch.load(weights_only=True)` reads (`archive.py`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError
from torch import Tensor, nn

import segpipe
from segpipe import archive, extensions, hub
from segpipe.config.model import AnyModel, Model, ModelChoice
from segpipe.errors import ConfigError
from segpipe.extensions import Extension
from segpipe.files import atomic
from segpipe.nets.bounded import build_bounded
from segpipe.nets.build import build
from segpipe.nets.unet import renamed_weights
from segpipe.plain import plain
from segpipe.plan import Plan
from segpipe.postprocess import PostProcess
from segpipe.quality import QualityModel
from segpipe.stored import SCHEMA, check_config, check_schema, read_config, read_plan, reason
from segpipe.text import clipped

log = logging.getLogger("segpipe")
KEY = "segpipe"
NETWORK = "network."  # the prefix of the network's weights in Lightning's file


@dataclass(frozen=True)
class TrainedOn:
    """The data of a run.

    Attributes:
        name: the name of the dataset.
        content: digest of its voxels, labels and geometry (`content_of`), the same for two runs
            on the same cases.
        train: cases that trained.
        validate: cases that validated.
        images: digest of the voxels of each of their images; none in files of older versions.
    """

    name: str
    content: str
    train: NonNegativeInt
    validate: NonNegativeInt
    images: Sequence[str] = ()


@dataclass(frozen=True)
class StartedFrom:
    """The checkpoint that a run has started from.

    Attributes:
        path: the path of its file, as it was given.
        content: digest of the file.
        step: optimiser steps that it was trained for.
        data: name of the dataset that it was trained on; None where that was not noted.
        images: digests of the images that took part in its training.
    """

    path: str
    content: str
    step: NonNegativeInt
    data: str | None
    images: Sequence[str] = ()


class About(BaseModel):
    """What a checkpoint says beside its weights, as the file has it.

    Attributes:
        version: the version of segpipe that wrote it.
        config: the run's options, of any version.
        plan: the run's plan, of any version.
        data: what the network is trained on.
        dice: the Dice of whole validation scans, per label or region.
        extensions: the extensions that the run has loaded.
        postprocess: the post-processing that was chosen on the validation cases.
        quality: the quality model that was learnt on the validation cases; None where there is
            none.
        global_step: optimiser steps so far.
        initial: the checkpoint that the run has started from; None where there was none.
    """

    model_config = ConfigDict(frozen=True)

    version: str = "unknown"
    config: dict[str, Any]
    plan: dict[str, Any]
    data: TrainedOn | None = None
    dice: dict[str, float] = {}
    extensions: list[Extension] = []
    postprocess: PostProcess = PostProcess()
    quality: QualityModel | None = None
    global_step: Annotated[int, Field(ge=0, lt=2**62)] = 0
    initial: StartedFrom | None = None


@dataclass(frozen=True)
class Trained:
    """A network ready to predict, and all that is known of it.

    Attributes:
        network: the network, in evaluation mode, on the CPU.
        plan: how a scan becomes what it sees.
        config: the run's options, as plain values.
        version: the version of segpipe that wrote it.
        data: what it was trained on; None where an older version did not note it.
        dice: the Dice of whole validation scans when it was saved, per label or region; empty
            before the first validation.
        step: optimiser steps that it was trained for.
        postprocess: the post-processing that was chosen on the validation cases; empty in files of
            older versions.
        initial: the checkpoint that its training started from; None where there was none.
        quality: models that predict the quality of masks, one per network that has one.
        seen: digests of the images that took part in the training, of an ensemble in that of any.
    """

    network: nn.Module
    plan: Plan
    config: dict[str, Any]
    version: str = segpipe.__version__
    data: TrainedOn | None = None
    dice: dict[str, float] = field(default_factory=dict)
    step: int = 0
    postprocess: PostProcess = field(default_factory=PostProcess)
    initial: StartedFrom | None = None
    quality: tuple[QualityModel, ...] = ()
    seen: frozenset[str] = frozenset()


def metadata(
    config: dict[str, Any],
    plan: Plan,
    data: TrainedOn | None = None,
    dice: Mapping[str, float] | None = None,
    initial: StartedFrom | None = None,
) -> dict[str, Any]:
    """Return what a checkpoint says beside its weights, as plain values.

    Args:
        config: the run's options.
        plan: the plan of the run.
        data: what the network is trained on.
        dice: the Dice of whole validation scans, per label or region.
        initial: the checkpoint that the run has started from.
    """
    return {
        "schema": SCHEMA,
        "version": segpipe.__version__,
        "config": config,
        "plan": plan.model_dump(),
        "data": data and asdict(data),
        "dice": dict(dice or {}),
        "extensions": [asdict(extension) for extension in extensions.loaded()],
        "initial": initial and asdict(initial),
    }


def amend(file: Path, **entries: object) -> None:
    """Store plain values beside the weights of a checkpoint, which is replaced at once or not.

    Raises:
        ConfigError: if the file is not a checkpoint.
    """
    content = archive.read(file)
    content[KEY] |= entries
    with atomic(file) as part:
        torch.save(content, part)


def find(path: Path) -> Path:
    """Return the checkpoint file of a path: itself, the best one of a run's folder, or the hub's.

    Raises:
        ConfigError: if there is none, or the hub's cannot be had.
    """
    if hub.is_on_hub(path):
        return hub.fetch(path)
    if path.is_dir():
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt"):
            if (path / name).is_file():
                return path / name
        raise ConfigError(
            f"{path}: holds no checkpoints/best.ckpt, so it is not the folder of a run that has "
            "validated"
        )
    if not path.is_file():
        raise ConfigError(f"{path}: no such checkpoint")
    return path


def _check_levels(file: Path, model: AnyModel, plan: Plan) -> None:
    levels = len(plan.kernels)
    if isinstance(model, Model) and model.channels is None:
        raise ConfigError(f"{file}: does not say how many channels its network has")
    if model.dims != plan.dims or (isinstance(model, Model) and model.levels != levels):
        raise ConfigError(
            f"{file}: its network is {model.dims}D with {model.levels} levels, but its plan "
            f"{plan.dims}D with {levels}"
        )


def load(path: Path) -> Trained:
    """Open a checkpoint of any version; nothing in it can run code.

    Raises:
        ConfigError: if the file is not a checkpoint of segpipe, damaged, of a newer schema, or in
            need of an extension that is not loaded.
    """
    file = find(path)
    stored = archive.read(file)
    about = _about(file, stored)
    plan = read_plan(file, about.plan)
    config = check_config(file, read_config(file, about.config))
    if "model" not in config:
        raise ConfigError(f"{file}: says nothing of the network that it has the weights of")
    model = TypeAdapter(ModelChoice).validate_python(config["model"])
    _check_levels(file, model, plan)

    def make() -> nn.Module:
        return build(model, len(plan.channels), plan.outputs, plan.strides, plan.kernels)

    network = build_bounded(file, make, _weights(file, stored))
    seen: list[str] = []
    for source in filter(None, (about.data, about.initial)):
        seen += source.images
    return Trained(
        network.eval(),
        plan,
        config,
        version=about.version,
        data=about.data,
        dice=about.dice,
        step=about.global_step,
        postprocess=about.postprocess,
        initial=about.initial,
        quality=() if about.quality is None else (about.quality,),
        seen=frozenset(seen),
    )


def _about(file: Path, stored: Mapping[str, Any]) -> About:
    """Return what a checkpoint says beside its weights.

    Raises:
        ConfigError: if it is another program's, of a newer schema, or needs an extension.
    """
    if not isinstance(stored.get(KEY), dict):
        raise ConfigError(f"{file}: is a file of torch, but not a checkpoint of segpipe")
    known = plain(file, stored[KEY])
    check_schema(file, known)
    try:
        about = About.model_validate(known | {"global_step": stored.get("global_step", 0)})
    except ValidationError as error:
        raise ConfigError(f"{file}: is not what segpipe writes ({reason(error)})") from None
    for warning in extensions.check_loaded(about.extensions, file):
        log.warning("%s", warning)
    return about


def _weights(file: Path, stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the network's weights under their present names.

    Raises:
        ConfigError: if there are none, or one is NaN or infinite.
    """
    found = stored.get("state_dict")
    weights: dict[str, Tensor] = {}
    found = found if isinstance(found, dict) else {}
    for name, weight in found.items():
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            raise ConfigError(f"{file}: holds weights that are no numbers ({clipped(name)})")
    for name, weight in renamed_weights(found).items():
        if name.startswith(NETWORK):
            weights[name.removeprefix(NETWORK)] = weight
    if not weights:
        raise ConfigError(f"{file}: holds no weights of a network")
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    if size > 2 * file.stat().st_size:
        raise ConfigError(f"{file}: declares larger weights than it holds; do not trust it")
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ConfigError(
                f"{file}: the weights {clipped(name)} are NaN or infinite, so it predicts "
                "nothing: the training diverged, or the file is damaged"
            )
    return weights
