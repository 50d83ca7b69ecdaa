"""Rules that derive a plan from the fingerprint of the training cases.

They are those of nnU-Net (Isensee 2021, Nature Methods 18, 203-211), with sizes for a small
network. A CPU gets smaller patches, because in a given time many small steps teach a network more
than few large ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from segpipe.config.train import Normalise, Train
from segpipe.errors import ConfigError
from segpipe.orientation import Planes
from segpipe.plan import BATCH_VOXELS, Plan, network_axes
from segpipe.planning.context import View, median_shape, widen
from segpipe.planning.decision import GIVEN, Decision, by_times
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.levels import Levels, decide_levels
from segpipe.planning.planes import along_planes, decide_planes
from segpipe.planning.resolution import Spacing, decide_spacing, derive_spacing
from segpipe.regions import index_regions
from segpipe.text import count, nearest
from segpipe.units import UNITS, Units

# voxels of a patch, by device and number of network axes
PATCH_VOXELS = {("cpu", 2): 128**2, ("cpu", 3): 40**3, ("cuda", 2): 512**2, ("cuda", 3): 128**3}
SMALLEST_BATCH = 2
LARGEST_BATCH = 16
# a channel with more zeros than this was cut out of its background, as brains are
CUT_OUT_ZERO_FRACTION = 0.25
HOUNSFIELD = ("CT", "HU")  # first words of the names of channels in Hounsfield units
# names of channels by which nnU-Net's dataset.json asks for a normalisation
NAMED: dict[str, Normalise] = {
    "nonorm": "none",
    "rescale_to_0_1": "rescale",
    "rgb_to_0_1": "rgb",
}


@dataclass(frozen=True)
class Decisions:
    """The decisions behind a plan, in the order in which logs and pages show them."""

    spacing: Decision[Spacing]
    planes: Decision[Planes]
    patch: Decision[list[int]]
    batch: Decision[int]
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
) -> Plan:
    """Return the plan for these cases, with the values of `options.plan` where they are given.

    Args:
        options: the run's options.
        fingerprint: of the training cases.
        channels: names of the image channels.
        labels: name -> id on disk, background first.
        device: `cpu` or `cuda`.
        scale: fraction of the usual voxels per step, below 1 where memory is short.

    Raises:
        ConfigError: if the given entries do not go together.
    """
    decisions = _decide(options, fingerprint, channels, device, scale)
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
    options: Train, fingerprint: Fingerprint, channels: list[str], device: str, scale: float
) -> Decisions:
    """Return all decisions; arguments as of `make_plan`."""
    planes = decide_planes(options, fingerprint)
    slice_axis = planes.value.slice_axis
    fingerprint = along_planes(fingerprint, planes.value)
    axes = network_axes(slice_axis)
    derived, why = derive_spacing(fingerprint)
    view = _decide_view(options, fingerprint, derived, axes, device)
    if view is not None:
        derived = view.spacing_mm
        why = view.why
    spacing = decide_spacing(options, derived, why, slice_axis)
    median = median_shape(fingerprint, spacing.value)
    size = options.plan.patch
    if size is None:
        voxels = (PATCH_VOXELS if view is None else BATCH_VOXELS)[device, len(axes)]
        size = _shrink([median[axis] for axis in axes], scale * voxels)
    levels = decide_levels(options, size, [float(spacing.value[axis] or 0) for axis in axes])
    patch = _decide_patch(options, size, levels.value.strides, axes, median, device)
    smallest = SMALLEST_BATCH if view is None else 1  # a patch that sees all is large
    batch = _decide_batch(options, patch.value, device, scale, smallest)
    normalise = decide_normalise(options, channels, fingerprint.zero_fraction)
    return Decisions(spacing, planes, patch, batch, levels, normalise)


def _decide_view(
    options: Train,
    fingerprint: Fingerprint,
    spacing_mm: Float[np.ndarray, "3"],
    axes: Sequence[int],
    device: str,
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
    return widen(spacing_mm, fingerprint, axes, (usual, largest), options.plan.ceiling)


def _shrink(shape: list[int], voxels: float) -> list[int]:
    """Return the shape, its longest axes shortened until it holds at most so many voxels."""
    size = np.array(shape, dtype=float)
    while size.prod() > voxels:
        longest = np.flatnonzero(size == size.max())
        others = np.delete(size, longest)
        equal = (voxels / others.prod()) ** (1 / len(longest))
        next_longest = others.max(initial=0)
        size[longest] = max(equal, next_longest)
        if equal >= next_longest:  # done, though rounding may leave the product above the limit
            break
    return [max(1, round(float(axis))) for axis in size]


def _decide_patch(
    options: Train,
    size: list[int],
    strides: list[list[int]],
    axes: list[int],
    median: list[int],
    device: str,
) -> Decision[list[int]]:
    """Return the patch size in voxels along all three axes, 1 along a slice axis.

    A derived size is rounded up to what the network's levels can halve.

    Raises:
        ConfigError: if a given size cannot be halved.
    """
    given = options.plan.patch is not None
    steps = np.prod(strides, axis=0)
    patch = [1, 1, 1]
    for entry, axis in enumerate(axes):
        step = int(steps[entry])
        above = -(-size[entry] // step) * step
        if given and above != size[entry]:
            raise ConfigError(
                f"plan.patch entry {entry} is {size[entry]}, which the network's levels cannot "
                f"halve to whole voxels (it needs a multiple of {step}): use "
                f"{max(step, above - step)} or {above}, or fewer levels"
            )
        patch[axis] = above
    why = GIVEN if given else f"of a median case of {by_times(median)} voxels, for {device}"
    return Decision(patch, f"patch {by_times(patch)}", why)


def _decide_batch(
    options: Train, patch: list[int], device: str, scale: float, smallest: int
) -> Decision[int]:
    """Return the number of patches per step, `smallest` or more."""
    given = options.plan.batch
    if given is not None:
        return Decision(given, f"batch {given}", GIVEN)
    voxels = int(scale * BATCH_VOXELS[device, options.model.dims])
    batch = int(np.clip(voxels // np.prod(patch), smallest, LARGEST_BATCH))
    return Decision(batch, f"batch {batch}", f"about {voxels} voxels a step, for {device}")


def decide_normalise(
    options: Train, channels: list[str], zero_fraction: Sequence[float]
) -> Decision[list[Normalise]]:
    """Return per channel how its intensities are brought to a common scale.

    Raises:
        ConfigError: if there are more or fewer given entries than channels.
    """
    given = options.plan.normalise
    if given is not None:
        if len(given) not in (1, len(channels)):
            raise ConfigError(
                f"plan.normalise has {len(given)} entries, but there are {len(channels)} channels: "
                "give each one"
            )
        rules = given * len(channels) if len(given) == 1 else given
        return Decision(rules, f"intensities {', '.join(rules)}", GIVEN)
    rules = []
    facts = []
    for channel, fraction in zip(channels, zero_fraction, strict=True):
        rules.append(_rule(channel, fraction))
        facts.append(f"{channel} ({100 * fraction:.0f} % are 0)")
    why = f"channels are {', '.join(facts)}"
    return Decision(rules, f"intensities {', '.join(rules)}", why)


def _rule(channel: str, zero_fraction: float) -> Normalise:
    """Return the normalisation of a channel, by its name and its fraction of zeros."""
    named = NAMED.get(channel.casefold())
    if named is not None:
        return named
    if channel.split(" ")[0].upper() in HOUNSFIELD:
        return "ct"
    return "zscore_nonzero" if zero_fraction > CUT_OUT_ZERO_FRACTION else "zscore"


def _sampling_reasons(
    options: Train, fingerprint: Fingerprint, labels: dict[str, int], units: Units
) -> list[str]:
    """Return a line per label on its size, which is why patches are centred on labels."""
    lines = []
    for name, number in labels.items():
        if number not in fingerprint.labels:
            continue
        size = fingerprint.labels[number]
        parts = "1 part" if size.parts == 1 else f"{size.parts:.3g} parts"
        lines.append(
            f"{name}: {100 * size.fraction:.2g} % of the voxels of {count(size.cases, 'case')}, "
            f"mostly in {parts}, the largest of {units.of_volume(size.part_ml):.3g} {units.volume}"
        )
    lines.append(
        f"foreground {options.plan.foreground:g}: this fraction of patches is centred on a "
        "labelled voxel, each label equally often"
    )
    return lines
