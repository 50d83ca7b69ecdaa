"""Runs that were started one by one, compared as if they were the runs of a sweep."""

import json
from collections.abc import Sequence
from pathlib import Path

from segpipe.errors import ConfigError
from segpipe.study.sweep import REPEATS, Repeat, Sweep, SweepRun, Variant, flat, why_unfinished

# keys that say where a run is and what is shown of it, not what it is
NO_VARIANT = (
    "name",
    "mode",
    "resume",
    "fix",
    "extensions",
    "verbose",
    "data.cache",
    "data.cache_gib",
    "data.workers",
)
SHOWN = ("page.", "comparison.", "logger.")


def read_runs(folders: Sequence[Path]) -> Sweep[SweepRun]:
    """Return runs as variants, named by the keys in which their configs differ.

    Runs that differ in seed and fold alone are one variant. Those that differ in nothing are told
    apart by their folders.

    Raises:
        ConfigError: if a folder is no run, or a run is given twice.
    """
    problems: dict[str, str] = {}
    given: dict[Path, Path] = {}
    runs: list[SweepRun] = []
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            raise ConfigError(f"runs: {folder} is not the folder of a run: it holds no config.yaml")
        first = given.setdefault(folder.resolve(), folder)
        if first is not folder:
            raise ConfigError(f"runs: {folder} is the run that {first} names already: give it once")
        problem = why_unfinished(folder)
        if problem:
            problems[folder.name] = problem
        else:
            runs.append(SweepRun(folder, (), ()))
    values = [_values(run) for run in runs]
    grouped: dict[tuple[str, ...], dict[Repeat, SweepRun]] = {}
    for run, own in zip(runs, values, strict=True):
        variant = _differing(own, values, repeats=False)
        repeat = _differing(own, values, repeats=True)
        if repeat in grouped.get(variant, {}):
            variant = (*variant, str(run.folder))
        grouped.setdefault(variant, {})[repeat] = SweepRun(run.folder, variant, repeat)
    variants: list[Variant[SweepRun]] = []
    for overrides, repeats in grouped.items():
        name = ", ".join(word.removeprefix("model.") for word in overrides)
        first = next(iter(repeats.values()))
        variants.append(Variant(name or first.folder.name, overrides, repeats))
    return Sweep(folders[0].parent, variants, problems)


def settings_that_differ(runs: Sequence[SweepRun]) -> list[dict[str, str]]:
    """Return for each run the options in which any other differs, without seed and fold."""
    values = [_values(run) for run in runs]
    settings: list[dict[str, str]] = []
    for own in values:
        words = _differing(own, values, repeats=False)
        pairs = [word.partition("=") for word in words]
        settings.append({key: value for key, _, value in pairs})
    return settings


def _values(run: SweepRun) -> dict[str, str]:
    """Return the options of a run as text, without those that do not tell what it is."""
    values: dict[str, str] = {}
    for key, value in flat(run.config).items():
        if key not in NO_VARIANT and not key.startswith(SHOWN):
            values[key] = value if isinstance(value, str) else json.dumps(value)
    return values


def _differing(
    own: dict[str, str], values: Sequence[dict[str, str]], repeats: bool
) -> tuple[str, ...]:
    """Return the options of a run in which others differ: of `REPEATS`, or all but those."""
    words: list[str] = []
    for key, value in own.items():
        differs = any(other.get(key) != value for other in values)
        if differs and (key in REPEATS) == repeats:
            words.append(f"{key}={value}")
    return tuple(words)
