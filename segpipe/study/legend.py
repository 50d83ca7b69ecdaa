"""What the letters of a study stand for: short names, and a table of the settings that differ."""

import string
from collections.abc import Mapping, Sequence

from segpipe.reporting.page import Cell, Column, Table
from segpipe.study.runs import settings_that_differ
from segpipe.study.sweep import Source, Sweep, SweepRun, Variant

SHORT = 32  # characters of a name


def letter(place: int) -> str:
    """Return the letter of the variant at a place: A to Z, then AA, AB ..."""
    before, last = divmod(place, len(string.ascii_uppercase))
    return (letter(before - 1) if before else "") + string.ascii_uppercase[last]


def letters(sweep: Sweep) -> dict[str, str]:
    """Return the letter of each variant, by its name."""
    return {variant.name: letter(place) for place, variant in enumerate(sweep.variants)}


def labels(sweep: Sweep) -> dict[str, str]:
    """Return letter and short name of each variant, as `B: none, residual`, by its name."""
    return {name: f"{short}: {shorts(sweep)[name]}" for name, short in letters(sweep).items()}


def shorts(sweep: Sweep) -> dict[str, str]:
    """Return a short name of each variant, by its name: of several settings the values alone."""
    found: dict[str, str] = {}
    for variant, settings in zip(sweep.variants, _settings(sweep), strict=True):
        short = ", ".join(settings.values()) or variant.name
        if len(settings) == 1:
            short = f"{next(iter(settings)).removeprefix('model.')}={short}"
        found[variant.name] = short if len(short) <= SHORT else f"{short[: SHORT - 1]}…"
    return found


def legend(sweep: Sweep, noun: str) -> Table:
    """Return a row per variant: its letter, and the settings in which the variants differ.

    Args:
        sweep: whose first variant is the reference.
        noun: what is compared; systems have names of their own too.
    """
    settings = _of_systems(sweep.variants) if noun == "system" else _settings(sweep)
    keys: dict[str, None] = {}
    for own in settings:
        keys |= dict.fromkeys(own)
    rows: list[list[Cell]] = []
    for place, own in enumerate(settings):
        role = "" if place else ", the reference"
        rows.append([f"{letter(place)}{role}", *map(own.get, keys)])
    caption = f"the settings in which the {noun}s differ"
    return Table(caption, [Column(noun), *map(Column, keys)], rows)


def _settings(sweep: Sweep) -> list[dict[str, str]]:
    """Return the settings of each variant that any other does not share."""
    settings = list(map(_overrides, sweep.variants))
    differing: list[dict[str, str]] = []
    for own in settings:
        kept: dict[str, str] = {}
        for key, value in own.items():
            if len(settings) == 1 or any(other.get(key) != value for other in settings):
                kept[key] = value
        differing.append(kept)
    return differing


def _overrides(variant: Variant) -> dict[str, str]:
    """Return the settings of a variant by their keys."""
    settings: dict[str, str] = {}
    for word in variant.overrides:
        key, sign, value = word.lstrip("+").partition("=")
        settings[key if sign else "folder"] = value if sign else word
    return settings


def _of_systems(systems: Sequence[Variant]) -> list[Mapping[str, str]]:
    """Return names and differing settings of systems; their folders where not all are runs."""
    runs: list[SweepRun] = []
    for system in systems:
        first = system.first_run
        if isinstance(first, Source) and first.run is not None:
            runs.append(first.run)
    settings: list[dict[str, str]] = []
    if len(runs) == len(systems):
        settings = settings_that_differ(runs)
    if not any(settings):
        settings = [{"folder": str(system.first_run.folder)} for system in systems]
    named: list[Mapping[str, str]] = []
    for system, own in zip(systems, settings, strict=True):
        named.append({"name": system.name, **own})
    return named
