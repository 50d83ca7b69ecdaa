"""From a command line to checked options, or to one clear line; the one door to Hydra and OmegaConf."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from segpipe.config.section import Section
from segpipe.errors import ConfigError
from segpipe.text import nearest

S = TypeVar("S", bound=Section)

PACKAGE = Path(__file__).resolve().parents[1]
LAUNCHERS = {
    "parallel": "joblib",
    "slurm": "submitit_slurm",
}  # and what each is made from, a plugin of Hydra's
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())


def keys(schema: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf of the schema as its dotted key, with its type and help; of a section of several kinds, of each."""
    for name, field in schema.model_fields.items():
        if sections := list(_sections(field.annotation)):
            leaves: dict[str, FieldInfo] = {}
            for section in sections:
                leaves = dict(keys(section, f"{prefix}{name}.")) | leaves
            yield from leaves.items()
        else:
            yield prefix + name, field


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a key may hold: itself, or the members of its union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for member in get_args(annotation):
        yield from _sections(member)


def validate(schema: type[S], values: dict[str, Any]) -> S:
    """`values` as checked options.

    Raises:
        ConfigError: for the first wrong key or value, in one line.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, [name for name, _ in keys(schema)])) from None


def _one_line(error: ValidationError, known: list[str]) -> str:
    # a union reports an error for each of its members: the one that got furthest is what was meant
    first = error.errors()[0]
    key = _key(first, known)
    same = [found for found in error.errors() if _key(found, known) == key]
    details = max(
        same,
        key=lambda found: (
            sum(isinstance(part, int) for part in found["loc"]),
            found["type"] == "literal_error",
        ),
    )
    if details["type"] == "value_error":
        text = str(details.get("ctx", {}).get("error", details["msg"]))
        return (
            text if text.split(" ")[0] in known or not key or key not in known else f"{key}: {text}"
        )
    if details["type"] == "extra_forbidden":
        key = ".".join(_place(details))
        return f"{key} is not a key.{nearest(key, known)}" if key not in known else _elsewhere(key)
    if details["type"] == "missing":
        return f"{'.'.join(_place(details))} has no value: add it to the config"
    entry = next(
        (f" entry {part}" for part in reversed(details["loc"]) if isinstance(part, int)), ""
    )
    value = details["input"]
    if details["type"] == "literal_error":
        choices = str(details.get("ctx", {}).get("expected", ""))
        hint = nearest(
            str(value), [choice.strip("' ") for choice in choices.replace(" or ", ", ").split(",")]
        )
        return f"{key}{entry} is {value!r}, which is none of {choices}.{hint}"
    return f"{key}{entry} is {value!r}: {details['msg'][0].lower()}{details['msg'][1:]}"


def _elsewhere(key: str) -> str:
    group = key.split(".")[0]
    return f"{key} is a key, but not of the chosen {group}: take it away, or choose another {group}"


def _place(details: ErrorDetails) -> list[str]:
    return [
        str(part) for part in details["loc"] if not str(part).startswith("(")
    ]  # without the kind of a section


def _key(details: ErrorDetails, known: list[str]) -> str:
    """The longest known key that the error's place begins with; a union's place ends with its member's name."""
    parts = _place(details)
    for length in range(len(parts), 0, -1):
        if (key := ".".join(parts[:length])) in known:
            return key
    return ".".join(parts)


def check(program: str, schema: type[Section], arguments: list[str]) -> None:
    """Composes and checks every job that the command line asks for, before the first of them starts.

    Raises:
        ConfigError: for the first wrong key, value or group choice.
    """
    from hydra import compose
    from hydra._internal.utils import get_args_parser
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    given = get_args_parser().parse_args(arguments)
    extra = (
        [f"hydra.searchpath=[file://{Path(given.config_dir).resolve()}]"]
        if given.config_dir
        else []
    )
    try:
        overrides = OverridesParser.create().parse_overrides(given.overrides)
        with _hydra():
            for override in overrides:
                _check_key(override.key_or_group, override.is_delete(), schema, given.config_dir)
            name = given.config_name or program
            for job in _jobs(name, given.overrides, extra) if given.multirun else [given.overrides]:
                options = compose(name, overrides=[*extra, *job])
                validate(schema, OmegaConf.to_container(options, resolve=True))  # type: ignore[arg-type]
    except (HydraException, OmegaConfBaseException) as error:
        refused = re.match(r"Could not override '([\w.]+)'", str(error))
        if refused and refused[1] in dict(keys(schema)):
            raise ConfigError(_elsewhere(refused[1])) from None
        for choice, plugin in LAUNCHERS.items():
            if f"'hydra/launcher/{plugin}'" in str(error):
                raise ConfigError(
                    f"hydra/launcher={choice} needs: pip install 'segpipe[{choice}]'"
                ) from None
        text = str(error).split("Config search path")[0].split("See https")[0]
        raise ConfigError(" ".join(text.split())) from None


def _jobs(program: str, overrides: list[str], extra: Sequence[str] = ()) -> list[list[str]]:
    """The overrides of each job of a sweep, in their order: those of a study, and those that are typed over them."""
    from hydra import compose
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    single = [one for one, found in zip(overrides, parser.parse_overrides(overrides), strict=True)
              if not found.is_sweep_override()]  # fmt: skip
    params = (
        compose(program, overrides=[*extra, *single], return_hydra_config=True).hydra.sweeper.params
        or {}
    )
    studied = [f"{key}={values}" for key, values in params.items()]
    return BasicSweeper.split_arguments(parser.parse_overrides([*studied, *overrides]), None)[0]


def sweep_jobs(folder: Path) -> list[list[str]]:
    """The overrides of each job of the sweep in this folder, in their order.

    Raises:
        ConfigError: if the folder is that of a sweep of another version, whose keys are no longer known.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    typed, _ = sweep_overrides(folder)
    try:
        with _hydra():
            return _jobs("train", typed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{folder}/multirun.yaml: {' '.join(str(error).split())}") from None


def sweep_overrides(folder: Path) -> tuple[list[str], list[str]]:
    """What was typed to start the sweep in this folder: of the jobs, and of Hydra."""
    from omegaconf import OmegaConf

    overrides = OmegaConf.load(folder / "multirun.yaml").hydra.overrides
    return list(overrides.task), list(overrides.hydra)


def _check_key(key: str, deleted: bool, schema: type[Section], config_dir: str | None) -> None:
    if key.split(".")[0] == "hydra" or key.startswith("hydra/"):
        return
    known = dict(keys(schema))
    folders = [CONF, *([Path(config_dir)] if config_dir else [])]
    groups = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    if deleted:
        raise ConfigError(
            f"~{key}: a key cannot be taken away; set it to null where its help allows that"
        )
    inside = any(key.startswith(f"{name}.") and _is_mapping(field) for name, field in known.items())
    if key not in known and key not in groups and not inside:
        raise ConfigError(
            f"{key} is not a key.{nearest(key, [*known, *groups])} (--help lists all)"
        )


def _is_mapping(field: FieldInfo) -> bool:
    return any(
        get_origin(member) is dict for member in (field.annotation, *get_args(field.annotation))
    )


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra on `conf/`; one that runs this very process, as at the end of a sweep, stands aside meanwhile."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    one = GlobalHydra.instance()
    running, one.hydra = one.hydra, None
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        one.hydra = running


def defaults(program: str) -> dict[str, Any]:
    """The values that `conf/` gives where nothing is overridden, unchecked."""
    from hydra import compose
    from omegaconf import OmegaConf

    with _hydra():
        return OmegaConf.to_container(compose(program), resolve=True)  # type: ignore[return-value]


def chosen(program: str) -> dict[str, str]:
    """The groups of `conf/` with their choice where nothing is overridden; "" of studies, which there is none of."""
    from hydra import compose

    with _hydra():
        found = compose(program, return_hydra_config=True).hydra.runtime.choices
    groups = {
        group: choice for group, choice in sorted(found.items()) if not group.startswith("hydra/")
    }
    return groups | ({"study": ""} if program == "train" else {})
