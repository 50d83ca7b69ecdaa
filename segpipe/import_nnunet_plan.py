"""The plan and the network of segpipe that a configuration of nnU-Net v2 is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segpipe.axes import Axes
from segpipe.config.compose import CONF
from segpipe.config.model import Model
from segpipe.config.train import Normalise
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.import_nnunet_results import (
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


@dataclass(frozen=True)
class Turn:
    """The axes of model space, x, y, z of a scan, in nnU-Net's order.

    nnU-Net reads a scan as z, y, x and brings it to the order of `transpose_forward`; a 2D network
    of its sees slices across the first of those axes.

    Attributes:
        axes: nnU-Net's axis for x, y and z, the slice axis included.
        dims: axes that the network sees.
    """

    axes: tuple[int, ...]
    dims: int

    @classmethod
    def of(cls, transpose_forward: Sequence[int], dims: int) -> "Turn":
        """Return the turn for a configuration of this many axes."""
        return cls(tuple(transpose_forward.index(2 - axis) for axis in range(3)), dims)

    @property
    def slice_axis(self) -> int | None:
        """Return the axis of model space that a 2D network does not see."""
        return self.axes.index(0) if self.dims == 2 else None

    @property
    def order(self) -> list[int]:
        """Return the axis of nnU-Net's network for each axis of the network here."""
        first = 3 - self.dims
        return [axis - first for axis in self.axes if axis >= first]

    def sizes(self, values: Sequence[int]) -> list[int]:
        """Return a value for each axis that nnU-Net's network sees in the order of those here."""
        return [values[axis] for axis in self.order]

    def spatial(self, values: Sequence[Any], across: Any) -> list[Any]:
        """Return likewise three values, with this one for the slice axis."""
        found = list(map(values.__getitem__, self.order))
        if self.slice_axis is not None:
            found.insert(self.slice_axis, across)
        return found

    def mirrored(self, axes: Sequence[int]) -> list[int]:
        """Return the axes of model space for axes of nnU-Net's network."""
        first = 3 - self.dims
        return sorted(self.axes.index(axis + first) for axis in axes if axis < self.dims)


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
    edges = {edge for kernel in layers.kernel_sizes for edge in kernel} - {1}
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
    source = results.folder / "plans.json"
    _check_rules(results, configuration)
    turn = Turn.of(results.plans.transpose_forward, len(configuration.patch_size))
    reader = results.plans.image_reader_writer
    spacing: Sequence[float] = configuration.spacing[-turn.dims :]
    try:
        plan = Plan(
            channels=results.channels,
            **_targets(results),
            spacing_mm=turn.spatial(spacing, None),
            averages=False,
            patch=turn.spatial(configuration.patch_size, 1),
            batch=configuration.batch_size,
            slice_axis=turn.slice_axis,  # type: ignore[arg-type]
            slices="plan",
            frame=None,
            axes=READERS[reader],
            rules="nnunet",
            mirror_axes=turn.mirrored(checkpoint.inference_allowed_mirroring_axes or []),  # type: ignore[arg-type]
            strides=list(map(turn.sizes, layers.strides[1:])),
            kernels=list(map(turn.sizes, layers.kernel_sizes)),
            normalise=_normalise(results, configuration),
            foreground=_foreground(results),
            nan="refuse",
            unit="px2" if reader == PIXELS else "mm",
            reasons=_reasons(results, checkpoint),
        )
        check_plan(plan)
    except (ValueError, IndexError) as error:
        if isinstance(error, ConfigError):
            raise
        what = reason(error) if isinstance(error, ValueError) else "lists of unequal lengths"
        raise ConfigError(f"{source}: makes no plan ({what})") from None
    return plan


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
    resampling = {
        configuration.resampling_fn_data: configuration.resampling_fn_data_kwargs,
        configuration.resampling_fn_probabilities: configuration.resampling_fn_probabilities_kwargs,
    }
    orders = (
        configuration.resampling_fn_data_kwargs,
        configuration.resampling_fn_probabilities_kwargs,
    )
    if set(resampling) != {RESAMPLING} or orders != (Resampling(), Resampling(order=1)):
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
