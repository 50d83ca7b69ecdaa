"""The plan of a run that starts from trained weights: that of the checkpoint, where these fit."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.orientation import Planes
from segpipe.plan import Plan
from segpipe.planning.decision import GIVEN, Decision, by_times
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.levels import Levels, levels_decision
from segpipe.planning.normalisation import decide_normalise
from segpipe.planning.resolution import spacing_entry
from segpipe.planning.rules import Decisions, assemble
from segpipe.text import nearest

log = logging.getLogger("segpipe")
# entries that follow from the data or may be given; all others are the checkpoint's
OF_THE_DATA = (
    "channels",
    "labels",
    "regions",
    "paint",
    "ignore",
    "nan",
    "unit",
    "spacing_mm",
    "patch",
    "batch",
    "slice_axis",
    "slices",
    "frame",
    "normalise",
)


@dataclass(frozen=True)
class Origin:
    """Where a plan comes from.

    Attributes:
        source: the run or checkpoint, as it was typed.
        plan: the checkpoint's.
        network: its network in a few words.
        channels: channel of the dataset -> channel of the checkpoint, as it was typed.
    """

    source: str
    plan: Plan
    network: str
    channels: Mapping[str, str]

    @property
    def why(self) -> str:
        """The reason for an entry that is the checkpoint's."""
        return f"that of {self.source} (init)"


def match_channels(new: Sequence[str], origin: Origin) -> list[int | None]:
    """Return for each channel of the dataset the channel of the checkpoint that it goes on from.

    It is the given one, else that of the same name. Where no name is known, as many channels are
    taken in their order.

    Args:
        new: names of the dataset's channels.
        origin: the checkpoint's plan, and the given channels.

    Returns:
        Indices among the checkpoint's channels; None for a channel that it does not have.

    Raises:
        ConfigError: if a given channel is not there.
    """
    old = origin.plan.channels
    for name, known in origin.channels.items():
        _check_name(name, new, "the dataset")
        _check_name(known, old, origin.source)
    folded = [name.casefold() for name in old]
    found: list[int | None] = []
    for name in new:
        wanted = origin.channels.get(name, name)
        is_known = wanted.casefold() in folded
        found.append(folded.index(wanted.casefold()) if is_known else None)
    if found == [None] * len(old):
        return list(range(len(old)))
    return found


def _check_name(name: str, known: Sequence[str], where: str) -> None:
    if name.casefold() not in [other.casefold() for other in known]:
        raise ConfigError(
            f"init.channels: {name!r} is no channel of {where} ({', '.join(known)})."
            f"{nearest(name, list(known))}"
        )


def inherit_plan(
    origin: Origin,
    options: Train,
    fingerprint: Fingerprint,
    channels: list[str],
    labels: dict[str, int],
    scale: float = 1.0,
) -> Plan:
    """Return the checkpoint's plan for other cases, with the values of `options.plan` over it.

    Args:
        origin: the checkpoint's plan.
        options: the run's options, with the checkpoint's network.
        fingerprint: the fingerprint of the training cases.
        channels: names of the image channels.
        labels: name -> id on disk, background first.
        scale: fraction of the checkpoint's patches per step, below 1 where memory is short.

    Raises:
        ConfigError: if a given entry cannot be that of the checkpoint's network.
    """
    old = origin.plan
    sources = match_channels(channels, origin)
    decisions = Decisions(
        _decide_spacing(origin, options),
        _decide_planes(origin, options),
        _decide_patch(origin, options),
        _decide_batch(origin, options, scale),
        Decision(origin.plan.widths, "", ""),
        _decide_levels(origin, options),
        _decide_normalise(origin, options, fingerprint, channels, sources),
    )
    plan = assemble(options, fingerprint, channels, labels, decisions)
    foreground = []
    for index, own in zip(sources, plan.foreground, strict=True):
        foreground.append(own if index is None else old.foreground[index])
    changed: dict[str, Any] = {key: getattr(plan, key) for key in OF_THE_DATA}
    changed["averages"] = plan.averages or old.averages
    changed["foreground"] = foreground
    changed["reasons"] = [f"{origin.network}: {origin.why}", *plan.reasons]
    return old.model_copy(update=changed)


def warn_of_changes(origin: Origin, options: Train, plan: Plan) -> None:
    """Log which given entries, or units of the cases, are not those of the checkpoint."""
    given = {
        "spacing_mm": options.plan.spacing,
        "normalise": options.plan.normalise,
        "slice_axis": options.data.slice_axis,
        "unit": plan.unit,
    }
    for key, typed in given.items():
        value = getattr(plan, key)
        before = getattr(origin.plan, key)
        if typed is None or value == before or _same_rules(value, before):
            continue
        log.warning(
            "init: %s is %s, but the weights of %s were trained with %s",
            key,
            value,
            origin.source,
            before,
        )


def _same_rules(value: object, before: object) -> bool:
    """Return whether two lists, as of normalisations, hold the same though for other channels."""
    if not isinstance(value, list) or not isinstance(before, list):
        return False
    return len(value) != len(before) and set(value) <= set(before)


def _decide_spacing(origin: Origin, options: Train) -> Decision[list[float | None]]:
    given = options.plan.spacing
    spacing: list[float | None] = [*(given or origin.plan.spacing_mm)]
    return Decision(spacing, spacing_entry(spacing), _why(given, origin))


def _decide_planes(origin: Origin, options: Train) -> Decision[Planes]:
    old = origin.plan
    given = options.data.slice_axis
    if old.slice_axis is None:
        if given is not None:
            raise ConfigError(
                f"data.slice_axis is for 2D networks, but that of {origin.source} is 3D: leave "
                "it out"
            )
        return Decision(Planes(None, old.slices, old.frame), "", "")
    if given is not None:
        return Decision(Planes(given, "flat"), f"slices across axis {given}", GIVEN)
    planes = Planes(old.slice_axis, old.slices, old.frame)
    entry = f"slices across axis {old.slice_axis}"
    if old.slices == "scan":
        entry = "slices as each scan was acquired"
    return Decision(planes, entry, origin.why)


def _decide_patch(origin: Origin, options: Train) -> Decision[list[int]]:
    old = origin.plan
    given = options.plan.patch
    if given is None:
        return Decision(old.patch, f"patch {by_times(old.patch)}", origin.why)
    if len(given) != old.dims:
        raise ConfigError(
            f"plan.patch has {len(given)} entries, but the network of {origin.source} is "
            f"{old.dims}D: give {old.dims}"
        )
    patch = [1, 1, 1]
    for entry, axis in enumerate(old.network_axes):
        step = 1
        for stride in old.strides:
            step *= stride[entry]
        if given[entry] % step:
            raise ConfigError(
                f"plan.patch entry {entry} is {given[entry]}, but the network of {origin.source} "
                f"needs a multiple of {step}"
            )
        patch[axis] = given[entry]
    return Decision(patch, f"patch {by_times(patch)}", GIVEN)


def _decide_batch(origin: Origin, options: Train, scale: float) -> Decision[int]:
    given = options.plan.batch
    batch = max(1, int(scale * origin.plan.batch)) if given is None else given
    return Decision(batch, f"batch {batch}", _why(given, origin))


def _decide_levels(origin: Origin, options: Train) -> Decision[Levels]:
    old = origin.plan
    for key in ("strides", "kernels"):
        given = getattr(options.plan, key)
        if given is not None and given != getattr(old, key):
            raise ConfigError(
                f"plan.{key} is {given}, but the weights of {origin.source} are for "
                f"{getattr(old, key)}: leave it out"
            )
    return levels_decision(Levels(old.strides, old.kernels), origin.why)


def _decide_normalise(
    origin: Origin,
    options: Train,
    fingerprint: Fingerprint,
    channels: list[str],
    sources: Sequence[int | None],
) -> Decision[list[Any]]:
    """Return the rule of each channel: given, the checkpoint's, or derived for a new channel."""
    derived = decide_normalise(options, channels, fingerprint.zero_fraction)
    if options.plan.normalise is not None or set(sources) == {None}:
        return derived
    rules = []
    for index, own in zip(sources, derived.value, strict=True):
        rules.append(own if index is None else origin.plan.normalise[index])
    why = origin.why
    if None in sources:
        why += f"; of other channels, since {derived.why}"
    return Decision(rules, f"intensities {', '.join(rules)}", why)


def _why(given: object, origin: Origin) -> str:
    return origin.why if given is None else GIVEN
