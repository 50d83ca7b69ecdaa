"""Rules that derive a plan from the fingerprint of the training cases.

They are those of nnU-Net (Isensee 2021, Nature Methods 18, 203-211), with sizes for a small
network. A CPU gets smaller patches, because in a given time many small steps teach a network more
than few large ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from segpipe.config.train import Normalise, Train
from segpipe.errors import ConfigError
from segpipe.orientation import Planes
from segpipe.plan import BATCH_VOXELS, Plan, network_axes
from segpipe.planning.capacity import (
    NNUNET_GIB,
    capacity,
    decide_network,
    network_of,
)
from segpipe.planning.context import View, median_shape, widen
from segpipe.planning.decision import Decision
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.levels import Levels
from segpipe.planning.normalisation import decide_normalise
from segpipe.planning.pace import Pace
from segpipe.planning.patch_size import shrink
from segpipe.planning.planes import along_planes, decide_planes
from segpipe.planning.resolution import Spacing, decide_spacing, derive_spacing
from segpipe.planning.sizes import (
    PATCH_VOXELS,
    SMALLEST_BATCH,
    Room,
    at_least,
    decide_batch,
    decide_patch,
)
from segpipe.regions import index_regions
from segpipe.text import count, nearest, rounded
from segpipe.units import UNITS, Units


@dataclass(frozen=True)
class Decisions:
    """The decisions behind a plan, in the order in which logs and pages show them."""

    spacing: Decision[Spacing]
    planes: Decision[Planes]
    patch: Decision[list[int]]
    batch: Decision[int]
    widths: Decision[list[int] | None]
    levels: Decision[Levels]
    normalise: Decision[list[Normalise]]

    @property
    def reasons(self) -> list[str]:
        """A line per decision; none where there was nothing to decide."""
        decisions = [getattr(self, field.name) for field in fields(self)]
        return [str(decision) for decision in decisions if decision.why]


def make_plan(
    options: Train,
    fingerprint: Fingerprint,
    channels: list[str],
    labels: dict[str, int],
    device: str,
    scale: float = 1.0,
    memory_gib: float = NNUNET_GIB,
    network: Plan | None = None,
    pace: Callable[[], Pace | None] = lambda: None,
) -> Plan:
    """Return the plan for these cases, with the values of `options.plan` where they are given.

    Args:
        options: the run's options.
        fingerprint: the fingerprint of the training cases.
        channels: names of the image channels.
        labels: name -> id on disk, background first.
        device: `cpu` or `cuda`.
        scale: fraction of the usual voxels per step, below 1 where memory is short.
        memory_gib: the memory of a GPU, GiB, for which a network is sized whose channels are not
            given.
        network: a plan whose network this one is to have; None: planned for this one.
        pace: a function that estimates the pace of the training, where it is asked for; None: it is
            not known.

    Raises:
        ConfigError: if the given entries do not go together.
    """
    speed = pace() if device == "cpu" else None
    in_time = None if speed is None else speed.capacity
    room = Room(device, scale, in_time or capacity(options, device, memory_gib))
    decisions = _decide(options, fingerprint, channels, room, network, pace)
    return assemble(options, fingerprint, channels, labels, decisions)


def assemble(
    options: Train,
    fingerprint: Fingerprint,
    channels: list[str],
    labels: dict[str, int],
    decisions: Decisions,
) -> Plan:
    """Return the plan that decisions make; the other arguments are those of `make_plan`.

    Raises:
        ConfigError: if the regions do not go with the labels.
    """
    planes = decisions.planes.value
    data = options.data
    painted = index_regions(data.regions, labels, data.paint, data.ignore_label)
    _check_codes(data.codes, painted.labels if painted else labels)
    units = UNITS[fingerprint.unit]
    return Plan(
        channels=channels,
        labels=painted.labels if painted else labels,
        regions=painted.regions if painted else None,
        paint=painted.paint if painted else None,
        ignore=data.ignore_label,
        spacing_mm=decisions.spacing.value,
        averages=_averages(fingerprint, decisions),
        patch=decisions.patch.value,
        batch=decisions.batch.value,
        slice_axis=planes.slice_axis,
        slices=planes.slices,
        frame=planes.frame,
        strides=decisions.levels.value.strides,
        kernels=decisions.levels.value.kernels,
        widths=decisions.widths.value,
        normalise=decisions.normalise.value,
        foreground=fingerprint.foreground,
        nan=options.data.nan,
        unit=fingerprint.unit,
        reasons=list(map(units.in_text, decisions.reasons))
        + _sampling_reasons(options, fingerprint, labels, units),
    )


def _check_codes(codes: Mapping[str, object] | None, labels: Mapping[str, int]) -> None:
    """Check that codes are of labels.

    Raises:
        ConfigError: naming one that is not.
    """
    names = list(labels)[1:]
    for name in codes or {}:
        if name not in names:
            raise ConfigError(f"data.codes.{name}: is no label.{nearest(name, names)}")


def _averages(fingerprint: Fingerprint, decisions: Decisions) -> bool:
    """Return whether model space is more than twice as coarse as a case along an axis."""
    cases = along_planes(fingerprint, decisions.planes.value)
    finest = cases.spacings_mm.min(axis=0)
    coarse = np.array(decisions.spacing.value, dtype=float)  # NaN where cases keep their own
    return bool((coarse > 2 * finest).any())


def _decide(
    options: Train,
    fingerprint: Fingerprint,
    channels: list[str],
    room: Room,
    network: Plan | None,
    pace: Callable[[], Pace | None],
) -> Decisions:
    """Return all decisions; arguments as of `make_plan`."""
    planes = decide_planes(options, fingerprint)
    slice_axis = planes.value.slice_axis
    fingerprint = along_planes(fingerprint, planes.value)
    axes = network_axes(slice_axis)
    derived, why = derive_spacing(fingerprint)
    view = _decide_view(options, fingerprint, derived, axes, room.device, pace)
    if view is not None:
        derived = view.spacing_mm
        why = view.why
    spacing = decide_spacing(options, derived, why, slice_axis)
    median = median_shape(fingerprint, spacing.value)
    size = options.plan.patch
    if size is None:
        voxels = room.patch_voxels(len(axes)) if view is None else room.batch_voxels(len(axes))
        size = shrink([median[axis] for axis in axes], voxels)
    edges = [float(spacing.value[axis] or 0) for axis in axes]
    widths, levels = decide_network(options, room.capacity, size, edges, room.device)
    if network is not None:
        widths, levels = network_of(network, widths.why)
        size = at_least(size, levels.value.strides, options)
    patch = decide_patch(options, size, levels.value.strides, axes, median, room.device)
    smallest = SMALLEST_BATCH if view is None else 1  # a patch that sees all is large
    batch = decide_batch(options, patch.value, room, smallest)
    normalise = decide_normalise(options, channels, fingerprint.zero_fraction)
    return Decisions(spacing, planes, patch, batch, widths, levels, normalise)


def _decide_view(
    options: Train,
    fingerprint: Fingerprint,
    spacing_mm: Float[np.ndarray, "3"],
    axes: Sequence[int],
    device: str,
    pace: Callable[[], Pace | None],
) -> View | None:
    """Return a coarser model space in which a patch sees more; None where it is given or stays.

    A GPU has nnU-Net's rule, the median: its patches are larger, and its budgets let a network
    learn an organ from a part of it.
    """
    if options.plan.spacing is not None or device != "cpu":
        return None
    usual = float(PATCH_VOXELS[device, len(axes)])
    largest = float(BATCH_VOXELS[device, len(axes)])
    if options.plan.patch is not None:
        usual = float(np.prod(options.plan.patch))
        largest = usual
    lowest = (options.plan.ceiling, options.plan.short_ceiling)
    return widen(spacing_mm, fingerprint, axes, (usual, largest), lowest, pace)


def _sampling_reasons(
    options: Train, fingerprint: Fingerprint, labels: dict[str, int], units: Units
) -> list[str]:
    """Return a line per label on its size, which is why patches are centred on labels."""
    lines = []
    for name, number in labels.items():
        if number not in fingerprint.labels:
            continue
        size = fingerprint.labels[number]
        parts = "1 part" if size.parts == 1 else f"{rounded(size.parts)} parts"
        lines.append(
            f"{name}: {100 * size.fraction:.2g} % of the voxels of {count(size.cases, 'case')}, "
            f"mostly in {parts}, the largest of {rounded(units.of_volume(size.part_ml))} "
            f"{units.volume}"
        )
    lines.append(
        f"foreground {options.plan.foreground:g}: this fraction of patches is centred on a "
        "labelled voxel, each label equally often"
    )
    return lines
