"""Fingerprint of the training cases -> plan: what training derives from the data.

The rules are those of nnU-Net (Isensee 2021, Nature Methods 18, 203-211). The sizes are for a small network; a CPU gets
smaller patches, because in a given time many small steps taught it more than few large ones.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from segpipe.config.model import MonaiModel
from segpipe.config.train import Normalise, Train
from segpipe.errors import ConfigError
from segpipe.plan import ANISOTROPIC, BATCH_VOXELS, Plan
from segpipe.planning.fingerprint import Fingerprint
from segpipe.regions import index_regions

PATCH_VOXELS = {("cpu", 2): 128**2, ("cpu", 3): 40**3, ("cuda", 2): 512**2, ("cuda", 3): 128**3}
BATCH = (2, 16)
VOID = 0.25  # a channel of which more than this is exactly 0 was cut out of its background, as brains are
SMALLEST_LEVEL = 4  # voxels along an axis below which it is no longer halved


def make_plan(
    options: Train,
    fingerprint: Fingerprint,
    channels: list[str],
    labels: dict[str, int],
    device: str,
    share: float = 1.0,
) -> Plan:
    """The plan for these cases, with the values of `options.plan` where they are given.

    Args:
        options: the run's options.
        fingerprint: of the training cases.
        channels: names of the image channels.
        labels: name -> id on disk, background first.
        device: `cpu` or `cuda`.
        share: of the usual voxels a step, where memory is short.

    Raises:
        ConfigError: if the given entries do not go together.
    """
    dims, given = options.model.dims, options.plan
    spacing, why_spacing = _spacing(fingerprint)
    slice_axis, why_slices = _slice_axis(options, spacing, fingerprint)
    target: list[float | None] = [float(mm) for mm in given.spacing or spacing]
    if slice_axis is not None and given.spacing is None:
        target[slice_axis] = None
    axes = [axis for axis in range(3) if axis != slice_axis]
    median = _median_shape(fingerprint, target)
    size = list(
        given.patch or _fit([median[axis] for axis in axes], share * PATCH_VOXELS[device, dims])
    )
    strides, kernels, why_levels = _levels(
        size, [float(target[axis] or spacing[axis]) for axis in axes], options
    )
    patch = _patch(size, axes, np.prod(strides, axis=0), given=given.patch is not None)
    voxels_a_step = int(share * BATCH_VOXELS[device, dims])
    batch = given.batch or int(np.clip(voxels_a_step // np.prod(patch), *BATCH))
    normalise, why_normalise = _normalise(options, channels, fingerprint.zero_fraction)

    def why(value: object, derived: str) -> str:
        return "given" if value is not None else derived

    return Plan(
        channels=channels,
        labels=labels,
        regions=index_regions(options.data.regions, labels),
        ignore=options.data.ignore_label,
        spacing_mm=target,
        patch=patch,
        batch=batch,
        slice_axis=slice_axis,
        strides=strides,
        kernels=kernels,
        normalise=normalise,
        foreground=fingerprint.foreground,
        reasons=[
            f"spacing {_times(target)} mm: {why(given.spacing, why_spacing)}",
            *([why_slices] if why_slices else []),
            f"patch {_times(patch)}: {why(given.patch, f'of a median case of {_times(median)} voxels, for {device}')}",
            f"batch {batch}: {why(given.batch, f'about {voxels_a_step} voxels a step, for {device}')}",
            f"strides {', '.join(map(_times, strides))}; kernels {', '.join(map(_times, kernels))}: {why_levels}",
            f"intensities {', '.join(normalise)}: {why_normalise}",
            *_sizes(fingerprint, labels, given.foreground),
        ],
    )


def _normalise(
    options: Train, channels: list[str], zero_fraction: list[float]
) -> tuple[list[Normalise], str]:
    """Per channel how its intensities are brought on a common scale, and why."""
    given = options.plan.normalise
    if given is None:
        rules: list[Normalise] = [
            _rule(channel, share) for channel, share in zip(channels, zero_fraction, strict=True)
        ]
        shares = [
            f"{name} ({100 * share:.0f} % are 0)"
            for name, share in zip(channels, zero_fraction, strict=True)
        ]
        return rules, f"channels are {', '.join(shares)}"
    if len(given) not in (1, len(channels)):
        raise ConfigError(
            f"plan.normalise has {len(given)} entries, but there are {len(channels)} channels: give each one"
        )
    return given * (len(channels) if len(given) == 1 else 1), "given"


def _rule(channel: str, zero_fraction: float) -> Normalise:
    if channel.split(" ")[0].upper() in ("CT", "HU"):
        return "ct"
    return "zscore_nonzero" if zero_fraction > VOID else "zscore"


def _sizes(fingerprint: Fingerprint, labels: dict[str, int], foreground: float) -> list[str]:
    """A line per label: how much there is of it, which is why patches are centred on labels."""
    lines = [
        f"{name}: {100 * size.share:.2g} % of the voxels of {size.cases} cases, mostly in {size.parts:.3g} parts, the "
        f"largest of {size.part_ml:.3g} mL"
        for name, number in labels.items()
        if (size := fingerprint.labels.get(number))
    ]
    return [
        *lines,
        f"foreground {foreground:g}: this share of patches is centred on a label, each equally often",
    ]


def _spacing(fingerprint: Fingerprint) -> tuple[np.ndarray, str]:
    """The median spacing; along a coarse axis the 10th percentile, so that fine scans are not blurred."""
    spacing = np.median(fingerprint.spacings_mm, axis=0)
    coarse = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != coarse]
    thin = all(
        np.median(fingerprint.shapes, axis=0)[coarse] * ANISOTROPIC
        < np.median(fingerprint.shapes, axis=0)[others]
    )
    if spacing[coarse] > ANISOTROPIC * spacing[others].max() and thin:
        tenth = float(np.percentile(fingerprint.spacings_mm[:, coarse], 10))
        spacing[coarse] = max(tenth, float(spacing[others].max()))
        return spacing, (
            f"anisotropic, so along the coarse axis {coarse} the 10th percentile, else the median"
        )
    return spacing, "median of the training cases"


def _slice_axis(
    options: Train, spacing: np.ndarray, fingerprint: Fingerprint
) -> tuple[Literal[0, 1, 2] | None, str]:
    if options.model.dims == 3:
        if options.data.slice_axis is not None:
            raise ConfigError(
                "data.slice_axis is for 2D networks, but model.dims is 3: take it away or use model=unet2d"
            )
        return None, ""
    if options.data.slice_axis is not None:
        return options.data.slice_axis, f"slices across axis {options.data.slice_axis}: given"
    flat = np.flatnonzero((fingerprint.shapes == 1).all(axis=0))
    axis = int(flat[-1]) if flat.size else 2 - int(np.argmax(np.round(spacing, 3)[::-1]))
    why = "the cases are 2D" if flat.size else f"the largest spacing, {spacing[axis]:.3g} mm"
    return axis, f"slices across axis {axis}: {why}"  # type: ignore[return-value]


def _median_shape(fingerprint: Fingerprint, target: list[float | None]) -> list[int]:
    goal = np.array([np.nan if mm is None else mm for mm in target])
    scale = np.where(np.isnan(goal), 1.0, fingerprint.spacings_mm / goal)
    return [max(1, int(size)) for size in np.median(np.round(fingerprint.boxes * scale), axis=0)]


def _fit(shape: list[int], voxels: float) -> list[int]:
    """`shape`, its longest axes shortened until it holds at most `voxels`."""
    size = np.array(shape, dtype=float)
    while size.prod() > voxels:
        longest = np.flatnonzero(size == size.max())
        others = np.delete(size, longest)
        equal = (voxels / others.prod()) ** (1 / len(longest))
        size[longest] = (
            max(equal, others.max(initial=0)) if equal < others.max(initial=0) else equal
        )
    return [max(1, round(float(axis))) for axis in size]


def _levels(
    size: list[int], spacing: list[float], options: Train
) -> tuple[list[list[int]], list[list[int]], str]:
    """Strides and kernels per level, and why: an axis is halved only while its voxels are the finest, or nearly so.

    A network of MONAI halves as it was made to, whatever the data.

    Raises:
        ConfigError: if what is given has not an entry for each level and axis.
    """
    model, given = options.model, options.plan
    levels = model.levels
    if isinstance(model, MonaiModel):
        if given.strides or given.kernels:
            raise ConfigError(
                "plan.strides and plan.kernels are for network=unet: give model.arguments instead"
            )
        return (
            [[2] * model.dims] * (levels - 1),
            [[3] * model.dims] * levels,
            "as the network has them",
        )
    for key, rows, needed in (
        ("strides", given.strides, levels - 1),
        ("kernels", given.kernels, levels),
    ):
        if rows is not None and [len(row) for row in rows] != [model.dims] * needed:
            raise ConfigError(
                f"plan.{key} must have {needed} entries of {model.dims}, since model.channels has {levels} levels and "
                f"model.dims is {model.dims}; it is {rows}"
            )
    now, mm = np.array(size), np.array(spacing)
    strides, kernels = [], []
    for level in range(levels):
        kernels.append(
            [
                3 if edge <= 2 * mm.min() and voxels > 1 else 1
                for edge, voxels in zip(mm, now, strict=True)
            ]
        )
        if level < levels - 1:
            halve = (mm < 2 * mm.min()) & (now >= 2 * SMALLEST_LEVEL)
            strides.append([2 if yes else 1 for yes in halve])
            if given.strides is not None:
                halve = np.array(given.strides[level]) == 2
            now, mm = np.where(halve, -(-now // 2), now), np.where(halve, 2 * mm, mm)
    whose = [key for key in ("strides", "kernels") if getattr(given, key) is not None]
    why = (
        f"{levels} levels, coarse axes later"
        if spacing != [spacing[0]] * len(spacing)
        else f"{levels} levels"
    )
    return (
        [list(row) for row in given.strides or strides],
        [list(row) for row in given.kernels or kernels],
        f"{' and '.join(whose)} given" if whose else why,
    )


def _patch(size: list[int], axes: list[int], steps: np.ndarray, given: bool) -> list[int]:
    """The patch along all three axes, 1 along a slice axis; rounded up to what the network can halve, if not given."""
    patch = [1, 1, 1]
    for place, (axis, voxels, step) in enumerate(zip(axes, size, steps, strict=True)):
        above = int(-(-voxels // step) * step)
        if given and above != voxels:
            raise ConfigError(
                f"plan.patch entry {place} is {voxels}, which the network's levels cannot halve to whole voxels (it "
                f"needs a multiple of {step}): use {max(step, above - step)} or {above}, or fewer levels"
            )
        patch[axis] = above
    return patch


def _times(values: Sequence[float | int | None]) -> str:
    return "x".join("own" if value is None else f"{value:.3g}" for value in values)
