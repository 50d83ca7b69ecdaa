"""From a command line to checked options, or to one clear line; the door to Hydra and OmegaConf."""

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segpipe import extensions
from segpipe.config.hydra_flags import parse_flags
from segpipe.config.key_check import check_keys
from segpipe.config.quoting import parse, searchpath
from segpipe.config.renamed import RENAMED
from segpipe.config.section import Section
from segpipe.config.validation import another_choice, keys, validate
from segpipe.errors import ConfigError
from segpipe.registry import AUGMENTATIONS, LOSSES
from segpipe.text import nearest

PACKAGE = Path(__file__).resolve().parents[1]
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
LAUNCHERS = {"parallel": "joblib", "slurm": "submitit_slurm"}  # by which plugin each is made
REGISTERED = {"loss": LOSSES, "augment": AUGMENTATIONS}  # groups whose keys a registry adds to


class Job(NamedTuple):
    """One run that a command line asks for.

    Attributes:
        options: checked ones, of the command's schema.
        overrides: the words that gave them.
    """

    options: Any
    overrides: list[str]


def normalise(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line without the plus that `study=` does not need."""
    return [re.sub(r"^\+(study=)", r"\1", word) for word in arguments]


def check(program: str, schema: type[Section], arguments: Sequence[str]) -> list[Job]:
    """Compose and check every job that the command line asks for, before the first one starts.

    Return the jobs in their order.

    Extensions that the command line or the config names are loaded first.

    Raises:
        ConfigError: for the first wrong key, value or group choice.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    given = parse_flags(normalise(arguments))
    if given.unknown:
        raise ConfigError(f"{given.unknown[0]} is not an option (--help lists all keys)")
    if given.config_dir and not Path(given.config_dir).is_dir():
        raise ConfigError(f"--config-dir {given.config_dir}: no such folder")
    folders = [CONF, *([Path(given.config_dir)] if given.config_dir else [])]
    extra = searchpath(given.config_dir)
    name = given.config_name or program
    extensions.load(named_extensions(name, given.overrides))
    try:
        with hydra_on_conf():
            check_keys(given.overrides, schema, folders)
            jobs = _requested_jobs(name, given.overrides, extra, given.multirun)
            return [_check_job(name, schema, extra, job) for job in jobs]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(str(error), schema)) from None


def values_of(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of one job of a command line that was checked."""
    from hydra import compose
    from omegaconf import OmegaConf

    given = parse_flags(normalise(arguments))
    with hydra_on_conf():
        overrides = [*searchpath(given.config_dir), *given.overrides]
        composed = compose(given.config_name or program, overrides=overrides)
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]


def named_extensions(program: str, overrides: Sequence[str]) -> list[str]:
    """Return the extensions that the command line names, else those of the config file.

    Raises:
        ConfigError: if the override cannot be read.
    """
    for override in reversed(overrides):
        if override.startswith("extensions="):
            named = parse(override).value() or []
            return list(map(str, named)) if isinstance(named, list) else [str(named)]
    file = CONF / f"{program}.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return list(values.get("extensions") or [])


def _requested_jobs(
    name: str, overrides: list[str], extra: list[str], multirun: bool
) -> list[list[str]]:
    """Return the overrides of each job; of a sweep without `-m`, refuse.

    Raises:
        ConfigError: if values of a sweep are typed, but no sweep is asked for.
    """
    single, swept = _split_overrides(overrides)
    if multirun or _is_study(name, single, extra):
        return split_jobs(name, overrides, extra)
    if swept:
        raise ConfigError(
            f"{swept[0]}: several values are a sweep, a run for each: add -m in front of them"
        )
    return [overrides]


def _split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of one value, and those that a sweep goes through."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    single = []
    swept = []
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for word, override in zip(overrides, parsed, strict=True):
        if override.is_sweep_override():
            swept.append(word)
        else:
            single.append(word)
    return single, swept


def _is_study(name: str, overrides: list[str], extra: list[str]) -> bool:
    """Return whether a file, as that of a study, asks for a sweep."""
    from hydra import compose

    mode = compose(name, overrides=[*extra, *overrides], return_hydra_config=True).hydra.mode
    return mode is not None and getattr(mode, "name", str(mode)) == "MULTIRUN"


def split_jobs(name: str, overrides: list[str], extra: Sequence[str] = ()) -> list[list[str]]:
    """Return the overrides of each job of a sweep, in Hydra's order.

    The values of a study come first; what is typed goes over them.
    """
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser

    single, _ = _split_overrides(overrides)
    composed = compose(name, overrides=[*extra, *single], return_hydra_config=True)
    params = composed.hydra.sweeper.params or {}
    words = [f"{key}={values}" for key, values in params.items()]
    parsed = OverridesParser.create().parse_overrides([*words, *overrides])
    choices: dict[str, list[str]] = {}  # what is typed later takes the place of the same key
    for override in parsed:
        key = override.get_key_element()
        if override.is_sweep_override():
            values = override.sweep_string_iterator()
        else:
            values = [override.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in itertools.product(*choices.values())]


def _check_job(name: str, schema: type[Section], extra: list[str], overrides: list[str]) -> Job:
    from hydra import compose
    from omegaconf import OmegaConf

    composed = compose(name, overrides=[*extra, *overrides])
    values: Any = OmegaConf.to_container(composed, resolve=True)
    return Job(validate(schema, values), overrides)


def _explain(text: str, schema: type[Section]) -> str:
    """Return what Hydra says in one line, with the choices that a user has."""
    refused = re.match(r"Could not override '([\w.]+)'", text)
    if refused and refused[1] in dict(keys(schema)):
        return another_choice(refused[1])
    for choice, plugin in LAUNCHERS.items():
        if f"'hydra/launcher/{plugin}'" in text:
            return f"hydra/launcher={choice} needs: pip install 'segpipe[{choice}]'"
    missing = re.search(r"Could not find '([\w/]+)/([^'/]+)'", text)
    if missing and (CONF / missing[1]).is_dir():
        names = choice_names(missing[1])
        hint = nearest(missing[2], names)
        return f"{missing[1]}={missing[2]} is none of {', '.join(names)}.{hint}"
    text = text.split("Config search path")[0].split("See https")[0]
    return " ".join(text.split())


def choice_names(group: str) -> list[str]:
    """Return the choices of a group of `conf/`."""
    return sorted(file.stem for file in (CONF / group).glob("[!_]*.yaml"))


def sweep_jobs(folder: Path) -> list[list[str]]:
    """Return the overrides of each job of the sweep in this folder, in their order.

    Raises:
        ConfigError: if its overrides cannot be read any more.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    typed, _ = sweep_overrides(folder)
    typed = [word for word in typed if not word.startswith("extensions=")]
    try:
        with hydra_on_conf():
            return split_jobs("train", typed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{folder}/multirun.yaml: {' '.join(str(error).split())}") from None


def sweep_overrides(folder: Path) -> tuple[list[str], list[str]]:
    """Return the overrides that started the sweep in this folder: of its jobs, and of Hydra.

    Keys that have another name now are mapped.
    """
    from omegaconf import OmegaConf

    # not resolved: a name may hold an escaped `${`
    values: Any = OmegaConf.to_container(OmegaConf.load(folder / "multirun.yaml"), resolve=False)
    overrides = values["hydra"]["overrides"]
    task = []
    for word in normalise(overrides["task"]):
        key, _, value = word.partition("=")
        name = RENAMED.get(key, key)
        if "=" not in name:  # an action, as mode=describe, is nothing of the runs themselves
            task.append(f"{name}={value}")
    return task, list(overrides["hydra"])


@contextmanager
def hydra_on_conf() -> Iterator[None]:
    """Let Hydra read `conf/`; one that runs this very process stands aside meanwhile."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register_defaults()
    instance = GlobalHydra.instance()
    running = instance.hydra
    instance.hydra = None
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        instance.hydra = running


def register_defaults() -> None:
    """Let every registered loss term and augmentation be a key that is 0 where no file sets it."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, registry in REGISTERED.items():
        store.store(group=group, name="registered", node=dict.fromkeys(registry, 0))


def defaults(program: str) -> dict[str, Any]:
    """Return the values that `conf/` gives where nothing is overridden, unchecked."""
    from hydra import compose
    from omegaconf import OmegaConf

    with hydra_on_conf():
        return OmegaConf.to_container(compose(program), resolve=True)  # type: ignore[return-value]


def chosen(program: str) -> dict[str, str]:
    """Return the groups of `conf/` with their default choice; "" where there is none."""
    from hydra import compose

    with hydra_on_conf():
        composed = compose(program, return_hydra_config=True)
    choices = composed.hydra.runtime.choices
    groups = {}
    for group, choice in sorted(choices.items()):
        if not group.startswith("hydra/") and "registered" not in str(choice):
            groups[group] = choice or ""
    return groups
