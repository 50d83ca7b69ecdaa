"""The plan and the network of segpipe that a configuration of nnU-Net v2 is."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from segpipe.axes import Axes
from segpipe.config.compose import CONF
from segpipe.config.model import Model
from segpipe.config.train import Normalise
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.import_nnunet.axes import Turn
from segpipe.import_nnunet.results import (
    RESAMPLING,
    Checkpoint,
    Configuration,
    Layers,
    Resampling,
    Results,
    checked,
)
from segpipe.plan import Plan
from segpipe.plan_check import check_plan
from segpipe.regions import index_regions
from segpipe.stored import read_yaml, reason
from segpipe.text import clipped

READERS: dict[str, Axes] = {
    "SimpleITKIO": "file",
    "NibabelIO": "file",
    "NaturalImage2DIO": "file",
    "SimpleITKIOWithReorient": "ras",
    "NibabelIOWithReorient": "ras",
}
PIXELS = "NaturalImage2DIO"  # the reader of images without millimetres
NORMALISE: dict[str, Normalise] = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale",
    "RGBTo01Normalization": "rgb",
}
NETWORKS = {"PlainConvUNet": "none", "ResidualEncoderUNet": "residual_d"}  # -> short skip
# arguments that do not change what the network computes, or that have but one value here
GIVEN = {
    "conv_op": {"torch.nn.modules.conv.Conv2d", "torch.nn.modules.conv.Conv3d"},
    "norm_op": {
        "torch.nn.modules.instancenorm.InstanceNorm2d",
        "torch.nn.modules.instancenorm.InstanceNorm3d",
    },
    "norm_op_kwargs": [{"eps": 1e-05, "affine": True}],
    "nonlin": {"torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU"},
    "nonlin_kwargs": [{"inplace": True}, None],
    "dropout_op": {None},
    "dropout_op_kwargs": [None],
    "deep_supervision": {True, False},
}


def layers_of(results: Results, configuration: Configuration) -> Layers:
    """Return the layers of a configuration's network.

    Raises:
        ConfigError: if it is another network than these, or has other parts.
    """
    source = results.folder / "plans.json"
    architecture = configuration.architecture
    name = architecture.network_class_name.rpartition(".")[2]
    if name not in NETWORKS:
        raise ConfigError(f"{source}: has a {clipped(name)}; {', '.join(NETWORKS)} can be read")
    known = Layers.model_fields.keys()
    for key, value in architecture.arch_kwargs.items():
        if key not in known and value not in GIVEN.get(key, [None]):
            raise ConfigError(f"{source}: {name} has {key}={clipped(value)}, which segpipe has not")
    layers = checked(source, Layers, architecture.arch_kwargs)
    if set(layers.strides[0]) != {1}:
        raise ConfigError(f"{source}: its first stage strides, which no network here does")
    if (layers.n_blocks_per_stage is None) != (name == "PlainConvUNet"):
        raise ConfigError(f"{source}: the stages of {name} have not the arguments that it takes")
    return layers


def model_of(results: Results, configuration: Configuration, layers: Layers) -> Model:
    """Return the options of the network.

    Raises:
        ConfigError: if no options mean it.
    """
    name = configuration.architecture.network_class_name.rpartition(".")[2]
    values = read_yaml(CONF / "model/unet3d.yaml")
    values["dims"] = len(configuration.patch_size)
    values["channels"] = layers.features_per_stage
    values["conv_bias"] = layers.conv_bias
    values["decoder_convs"] = layers.n_conv_per_stage_decoder[::-1]
    values["decoder_blocks"] = 1
    values["short_skips"] = NETWORKS[name]
    values["short_skips_in"] = "encoder"
    values["blocks"] = layers.n_blocks_per_stage or 1
    values["convs"] = layers.n_conv_per_stage or 2
    values["kernel"] = _kernel(results, layers)
    return validate(Model, values)


def _kernel(results: Results, layers: Layers) -> int:
    """Return the edge that all kernels have along the axes along which they see neighbours."""
    edges = set(chain.from_iterable(layers.kernel_sizes)) - {1}
    if len(edges) > 1 or any(edge % 2 == 0 for edge in edges):
        raise ConfigError(
            f"{results.folder / 'plans.json'}: has kernels of {sorted(edges)} voxels; one odd edge "
            "can be read"
        )
    return edges.pop() if edges else 1


def plan_of(
    results: Results, configuration: Configuration, layers: Layers, checkpoint: Checkpoint
) -> Plan:
    """Return the plan by which scans become what nnU-Net's network sees.

    Raises:
        ConfigError: naming what nnU-Net does to scans and segpipe cannot.
    """
    _check_rules(results, configuration)
    try:
        plan = Plan(
            channels=results.channels,
            **_targets(results),
            **_space(results, configuration, layers),
            axes=READERS[results.plans.image_reader_writer],
            rules="nnunet",
            mirror_axes=_turn(results, configuration).mirrored(
                checkpoint.inference_allowed_mirroring_axes or []
            ),
            batch=configuration.batch_size,
            averages=False,
            normalise=_normalise(results, configuration),
            foreground=_foreground(results),
            nan="refuse",
            reasons=_reasons(results, checkpoint),
        )
        check_plan(plan)
    except ConfigError:
        raise
    except (ValueError, IndexError) as error:  # lists of unequal lengths, or values out of range
        what = reason(error) if isinstance(error, ValueError) else "lists are too short"
        raise ConfigError(f"{results.folder / 'plans.json'}: makes no plan ({what})") from None
    return plan


def _turn(results: Results, configuration: Configuration) -> Turn:
    return Turn.of(results.plans.transpose_forward, len(configuration.patch_size))


def _space(results: Results, configuration: Configuration, layers: Layers) -> dict[str, Any]:
    """Return the entries of the plan that have a value for each axis, and their unit."""
    turn = _turn(results, configuration)
    return {
        "spacing_mm": turn.spatial(configuration.spacing[-turn.dims :], None),
        "patch": turn.spatial(configuration.patch_size, 1),
        "slice_axis": turn.slice_axis,
        "slices": "plan",
        "frame": None,
        "strides": list(map(turn.sizes, layers.strides[1:])),
        "kernels": list(map(turn.sizes, layers.kernel_sizes)),
        "unit": "px2" if results.plans.image_reader_writer == PIXELS else "mm",
    }


def _check_rules(results: Results, configuration: Configuration) -> None:
    """Check that scans are prepared in a way that is known here.

    Raises:
        ConfigError: otherwise.
    """
    source = results.folder / "plans.json"
    if configuration.previous_stage is not None:
        raise ConfigError(
            f"{source}: is the second stage of a cascade, which needs the masks of "
            f"{clipped(configuration.previous_stage)}: import that configuration, or 3d_fullres"
        )
    if results.plans.image_reader_writer not in READERS:
        reader = clipped(results.plans.image_reader_writer)
        raise ConfigError(f"{source}: {reader} reads its scans; known are {', '.join(READERS)}")
    if configuration.preprocessor_name != "DefaultPreprocessor":
        name = clipped(configuration.preprocessor_name)
        raise ConfigError(f"{source}: {name} prepares its scans; DefaultPreprocessor can be read")
    functions = {configuration.resampling_fn_data, configuration.resampling_fn_probabilities}
    orders = (
        configuration.resampling_fn_data_kwargs,
        configuration.resampling_fn_probabilities_kwargs,
    )
    if functions != {RESAMPLING} or orders != (Resampling(), Resampling(order=1)):
        raise ConfigError(
            f"{source}: resamples in another way than nnU-Net by default ({RESAMPLING} of the "
            "orders 3 and 1, a coarse axis apart)"
        )


def _targets(results: Results) -> dict[str, Any]:
    """Return the entries of the plan that say what is segmented.

    Raises:
        ConfigError: if regions have no order.
    """
    source = results.folder / "dataset.json"
    found = results.labels
    labels = found.labels or {}
    ids = sorted([*labels.values()] + ([found.ignore] if found.ignore is not None else []))
    if found.regions is None and ids != list(range(len(ids))):
        raise ConfigError(f"{source}: its labels are not numbered 0, 1, 2 ...")
    if found.regions is not None and found.paint is None:
        raise ConfigError(f"{source}: has regions, but no regions_class_order")
    painted = index_regions(found.regions, labels, found.paint, found.ignore)
    return {
        "labels": painted.labels if painted else labels,
        "regions": painted.regions if painted else None,
        "paint": painted.paint if painted else None,
        "ignore": found.ignore,
    }


def _normalise(results: Results, configuration: Configuration) -> list[Normalise]:
    source = results.folder / "plans.json"
    schemes = zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
    methods = []
    for scheme, masked in schemes:
        if scheme not in NORMALISE:
            known = ", ".join(NORMALISE)
            raise ConfigError(f"{source}: {clipped(scheme)} is none of {known}")
        method = NORMALISE[scheme]
        methods.append("zscore_nonzero" if masked and method == "zscore" else method)
    return methods


def _foreground(results: Results) -> list[tuple[float, float, float, float]]:
    """Return the intensities of labelled voxels, channel by channel."""
    source = results.folder / "plans.json"
    stored: Mapping[str, Any] = results.plans.foreground_intensity_properties_per_channel
    found = []
    for number in range(len(results.channels)):
        if str(number) not in stored:
            raise ConfigError(f"{source}: says nothing of the intensities of channel {number}")
        values = stored[str(number)]
        found.append((values.percentile_00_5, values.percentile_99_5, values.mean, values.std))
    return found


def _reasons(results: Results, checkpoint: Checkpoint) -> list[str]:
    name = checkpoint.init_args.configuration
    source = f"{results.plans.dataset_name}, {name}, {checkpoint.trainer_name}"
    return [
        f"all from nnU-Net: {clipped(source, 200)}, {checkpoint.current_epoch} epochs",
        "spacing, patch, strides and kernels: in the order x, y, z of "
        + ("RAS+" if READERS[results.plans.image_reader_writer] == "ras" else "the scan's file"),
    ]
