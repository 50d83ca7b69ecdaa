"""Read a folder of results of nnU-Net v2: its plans, its labels, and a checkpoint of a fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from torch import Tensor

from segpipe import archive
from segpipe.data.layouts.dataset_json import DatasetJson
from segpipe.data.layouts.nnunet_labels import DeclaredLabels, read_labels
from segpipe.errors import ConfigError, DataError
from segpipe.plain import plain, read_json
from segpipe.stored import reason
from segpipe.text import clipped

M = TypeVar("M", bound=BaseModel)
Axis = Annotated[int, Field(ge=0, le=2)]
Sizes = list[PositiveInt]
RESAMPLING = "resample_data_or_seg_to_shape"
# numbers of NumPy's, which nnU-Net's log holds
NUMPY = [
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np.dtype, "numpy.dtype"),
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]
MADE = {
    "numpy._core.multiarray scalar",
    "numpy.core.multiarray scalar",
    "numpy dtype",
    "torch device",
    "_codecs encode",
}


class Intensities(BaseModel):
    """What `plans.json` says of a channel's labelled voxels."""

    percentile_00_5: float
    percentile_99_5: float
    mean: float
    std: float


class Architecture(BaseModel):
    """A network: the name of its class, and the arguments of its constructor."""

    network_class_name: str
    arch_kwargs: dict[str, Any]


class Layers(BaseModel):
    """The arguments of `PlainConvUNet` and `ResidualEncoderUNet`; a list is read finest first."""

    n_stages: PositiveInt = Field(ge=2, le=32)
    features_per_stage: Sizes
    kernel_sizes: list[Sizes]
    strides: list[Sizes]
    n_conv_per_stage: Sizes | None = None
    n_blocks_per_stage: Sizes | None = None
    n_conv_per_stage_decoder: Sizes
    conv_bias: bool = False

    @model_validator(mode="after")
    def _has_a_value_per_stage(self) -> "Layers":
        blocks = self.n_blocks_per_stage or self.n_conv_per_stage
        for values in (self.features_per_stage, self.kernel_sizes, self.strides, blocks):
            if values is None or len(values) != self.n_stages:
                raise ValueError(f"arch_kwargs have not one value for each of {self.n_stages}")
        if len(self.n_conv_per_stage_decoder) != self.n_stages - 1:
            raise ValueError("n_conv_per_stage_decoder has not one value for each stage")
        return self


class Resampling(BaseModel):
    """The arguments of nnU-Net's resampling."""

    order: int = 3
    order_z: int = 0
    force_separate_z: bool | None = None


class Configuration(BaseModel):
    """A configuration of `plans.json`, as `2d` or `3d_fullres`."""

    previous_stage: str | None = None
    preprocessor_name: str = "DefaultPreprocessor"
    batch_size: PositiveInt
    patch_size: Annotated[Sizes, Field(min_length=2, max_length=3)]
    spacing: Annotated[list[PositiveFloat], Field(min_length=2, max_length=3)]
    normalization_schemes: list[str]
    use_mask_for_norm: list[bool]
    resampling_fn_data: str = RESAMPLING
    resampling_fn_data_kwargs: Resampling = Resampling()
    resampling_fn_probabilities: str = RESAMPLING
    resampling_fn_probabilities_kwargs: Resampling = Resampling(order=1)
    architecture: Architecture


class OldNetwork(BaseModel):
    """How a configuration describes its network in files of before nnU-Net 2.4."""

    UNet_class_name: str
    UNet_base_num_features: PositiveInt
    unet_max_num_features: PositiveInt
    conv_kernel_sizes: list[Sizes]
    pool_op_kernel_sizes: list[Sizes]
    n_conv_per_stage_encoder: Sizes
    n_conv_per_stage_decoder: Sizes


class Plans(BaseModel):
    """What is used of `plans.json`."""

    dataset_name: str = "unknown"
    image_reader_writer: str
    transpose_forward: Annotated[list[Axis], Field(min_length=3, max_length=3)]
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, Intensities]


class Arguments(BaseModel):
    """What is used of a checkpoint's `init_args`."""

    configuration: str


class Checkpoint(BaseModel):
    """What is used of a checkpoint, beside the weights."""

    init_args: Arguments
    trainer_name: str = "unknown"
    current_epoch: int = 0
    inference_allowed_mirroring_axes: list[Axis] | None = None


@dataclass(frozen=True)
class Results:
    """A folder of results.

    Attributes:
        folder: the folder itself.
        plans: the plans of its dataset.
        channels: names of the image channels.
        labels: names, ids, regions and the id to ignore.
    """

    folder: Path
    plans: Plans
    channels: list[str]
    labels: DeclaredLabels


def read_results(folder: Path) -> Results:
    """Read `plans.json` and `dataset.json` of a folder of results.

    Raises:
        ConfigError: if there are none, or they hold something else.
    """
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise ConfigError(
                f"results={folder}: has no {name}: name a folder as nnU-Net v2 writes it, such as "
                "Dataset004_X/nnUNetTrainer__nnUNetPlans__3d_fullres"
            )
    plans = checked(folder / "plans.json", Plans, read_json(folder / "plans.json"))
    if sorted(plans.transpose_forward) != [0, 1, 2]:
        raise ConfigError(f"{folder / 'plans.json'}: transpose_forward is no order of three axes")
    content = read_json(folder / "dataset.json")
    if not isinstance(content, dict):
        raise ConfigError(f"{folder / 'dataset.json'}: holds no keys")
    listing = DatasetJson(folder / "dataset.json", content)
    try:
        channels = listing.names_by_number("channel_names", '{"0": "MRI"}')
        return Results(folder, plans, list(channels.values()), read_labels(listing))
    except DataError as error:
        raise ConfigError(str(error)) from None


def checked(source: object, kind: type[M], values: Any) -> M:
    """Return plain values as a checked object.

    Raises:
        ConfigError: naming the first that is missing or wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: is not what nnU-Net v2 writes ({reason(error)})") from None


def read_configuration(results: Results, name: str) -> Configuration:
    """Return a configuration with what it inherits from others.

    Raises:
        ConfigError: if there is none of this name, or it holds something else.
    """
    file = results.folder / "plans.json"
    values: dict[str, Any] = {}
    wanted: Any = name
    for _ in results.plans.configurations:
        if not isinstance(wanted, str) or wanted not in results.plans.configurations:
            raise ConfigError(f"{file}: has no configuration {clipped(wanted)}")
        found = results.plans.configurations[wanted]
        values = found | values
        wanted = found.get("inherits_from")
        if wanted is None:
            break
    if "architecture" not in values:
        values = values | {"architecture": _modern(checked(file, OldNetwork, values))}
    return checked(file, Configuration, values)


def _modern(old: OldNetwork) -> dict[str, Any]:
    """Return the architecture of a network that an older file describes."""
    stages = len(old.n_conv_per_stage_encoder)
    channels = []
    for level in range(stages):
        channels.append(min(old.UNet_base_num_features * 2**level, old.unet_max_num_features))
    residual = "Residual" in old.UNet_class_name
    arguments = {
        "n_stages": stages,
        "features_per_stage": channels,
        "kernel_sizes": old.conv_kernel_sizes,
        "strides": old.pool_op_kernel_sizes,
        "n_blocks_per_stage" if residual else "n_conv_per_stage": old.n_conv_per_stage_encoder,
        "n_conv_per_stage_decoder": old.n_conv_per_stage_decoder,
        "conv_bias": True,
    }
    return {"network_class_name": old.UNet_class_name, "arch_kwargs": arguments}


def fold_names(folder: Path, folds: Sequence[int | str] | None) -> list[str]:
    """Return the folders of these folds, or of all that are there.

    Raises:
        ConfigError: if there is none.
    """
    if folds is not None:
        return [f"fold_{fold}" for fold in folds]
    names = sorted(path.name for path in folder.glob("fold_[0-9]*"))
    if not names and (folder / "fold_all").is_dir():
        names = ["fold_all"]
    if not names:
        raise ConfigError(f"results={folder}: holds no folder fold_0, fold_1 ... or fold_all")
    return names


def read_checkpoint(
    folder: Path, fold: str, which: Literal["final", "best"]
) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Read a fold's checkpoint, and its weights by nnU-Net's names; nothing in it can run code.

    Raises:
        ConfigError: if there is none, or it holds something else.
    """
    file = folder / fold / f"checkpoint_{which}.pth"
    if not file.is_file():
        raise ConfigError(f"{file}: no such checkpoint; see folds and checkpoint")
    with torch.serialization.safe_globals(NUMPY):
        stored = archive.read(file, weights="network_weights", made=MADE)
    used = {key: stored.get(key) for key in Checkpoint.model_fields if key in stored}
    used["init_args"] = {"configuration": _configuration(stored)}
    return checked(file, Checkpoint, plain(file, used)), _weights(file, stored)


def _configuration(stored: Mapping[str, Any]) -> Any:
    arguments = stored.get("init_args")
    return arguments.get("configuration") if isinstance(arguments, dict) else None


def _weights(file: Path, stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights, each under the first of the names that nnU-Net gives it."""
    found = stored.get("network_weights")
    weights = {}
    for name, weight in (found if isinstance(found, dict) else {}).items():
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            raise ConfigError(f"{file}: holds weights that are no numbers ({clipped(name)})")
        if ".all_modules." not in name and not name.startswith("decoder.encoder."):
            weights[name] = weight
    if not weights:
        raise ConfigError(f"{file}: holds no network_weights, so it is not nnU-Net v2's")
    return weights
