"""Files that were written once and are read for ever: versions, completion, renamed keys.

Checkpoints, `config.yaml`, `plan.yaml`, `split.json`, `manifest.json` and `report.json` carry the
number of the schema by which they were written; files of segpipe 0.1.0 carry none, which is 1. A
newer schema is refused. Of configs and plans, in files and in checkpoints, a missing key takes the
value that means "as it was then" (`Was` in the schema; a loss term or an augmentation is 0), a
renamed key is mapped, an unknown one is named once in the log and ignored. Records of predictions
are completed in `prediction/records.py`.
"""

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from segpipe.config.data import Data, PhantomData
from segpipe.config.logger import MLflow, TensorBoard, Wandb
from segpipe.config.model import Model, MonaiModel
from segpipe.config.renamed import RENAMED
from segpipe.config.section import RegisteredSection, Section, Was
from segpipe.config.train import Loss, Train
from segpipe.config.validation import sections, validate
from segpipe.errors import ConfigError
from segpipe.plain import plain, read_json, read_text
from segpipe.plan import Plan
from segpipe.plan_check import check_plan
from segpipe.registry import BLOCKS, LONG_SKIPS, LOSSES, OPTIMISERS, SHORT_SKIPS, Registry
from segpipe.text import clipped, first_line

log = logging.getLogger("segpipe")
SCHEMA = 2
MOST_YAML_BYTES = 2**22
KEY = "schema"
CHOICES: dict[tuple[str, str], Registry[Any]] = {  # keys whose value an extension may have defined
    ("model", "long_skips"): LONG_SKIPS,
    ("model", "short_skips"): SHORT_SKIPS,
    ("model", "block"): BLOCKS,
    ("model", "decoder_block"): BLOCKS,
    ("optim", "name"): OPTIMISERS,
}
S = TypeVar("S", bound=BaseModel)
_named: set[tuple[str, str]] = set()  # files and unknown keys that the log has named already


def check_schema(source: object, values: Mapping[str, Any]) -> None:
    """Refuse what a later segpipe has written.

    Args:
        source: the file, for the message.
        values: its content.

    Raises:
        ConfigError: if its schema is newer than this one.
    """
    schema = values.get(KEY, 1)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ConfigError(
            f"{source}: was written by a newer segpipe (schema {clipped(schema)}; this one reads "
            f"up to {SCHEMA}): update segpipe"
        )


def read_config(source: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config of any version as the present schema has it, as plain values.

    Raises:
        ConfigError: if it is not a config, or of a newer schema.
    """
    check_schema(source, values)
    config = {key: value for key, value in values.items() if key != KEY}
    _check_sections(source, config)
    config = _renamed(config)
    data = config.get("data")
    if isinstance(data, dict) and data.get("layout") != "phantom":
        data.pop("phantom", None)  # until 0.1.0 every dataset had these keys
    check_extensions_known(source, config)
    return complete(source, Train, config)


def read_train_options(source: object, values: Mapping[str, Any]) -> Train:
    """Return a run's config of any version as checked options.

    Raises:
        ConfigError: if it is not a config, of a newer schema, or needs an extension.
    """
    return validate(Train, read_config(source, values) | {"resume": None})


def read_plan(source: object, values: Mapping[str, Any]) -> Plan:
    """Return a plan of any version.

    Raises:
        ConfigError: if it is not a plan, or of a newer schema.
    """
    check_schema(source, values)
    known = {key: value for key, value in values.items() if key != KEY}
    try:
        plan = Plan.model_validate(complete(source, Plan, known))
        check_plan(plan)
    except ValueError as error:
        raise ConfigError(f"{source}: does not hold a plan ({reason(error)})") from None
    return plan


def check_config(source: object, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of `read_config` with every section that it has checked.

    Raises:
        ConfigError: naming the first wrong value.
    """
    checked = {**config}
    for name in Train.model_fields:
        if name == "resume" or name not in config:
            continue
        adapter = _adapter(name)
        try:
            value = adapter.validate_python(config[name])
        except ValueError as error:
            raise ConfigError(f"{source}: config.{name} is wrong ({reason(error)})") from None
        checked[name] = adapter.dump_python(value, mode="json")
    return checked


@cache
def _adapter(name: str) -> Any:
    """Return the rules of one section of the config."""
    field = Train.model_fields[name]
    annotated: Any = Annotated
    return TypeAdapter(annotated[field.annotation, field])


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        ConfigError: if it cannot be read, or holds something else.
    """
    try:
        values = yaml.safe_load(read_text(file, MOST_YAML_BYTES))
    except ConfigError:
        raise
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read ({first_line(error)})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds no keys, so it is not what a run writes")
    return plain(file, values)


def read_record(file: Path, kind: Any, mend: str = "") -> Any:
    """Return what a JSON file of a run or of a batch holds, as checked values.

    Args:
        file: the file of any version.
        kind: a type that pydantic checks, such as `dict[str, list[str]]`.
        mend: what the user can do where it holds something else.

    Raises:
        ConfigError: if it cannot be read, holds something else, or is of a newer schema.
    """
    content = read_json(file)
    if isinstance(content, dict):
        check_schema(file, content)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{file}: is not what segpipe writes ({reason(error)}){mend}") from None


def complete(source: object, schema: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with what the schema has learnt since they were written.

    A missing key gets the value of its `Was`; without one it stays missing, so that validation
    names it. A key that the schema does not have is left out and named once in the log.

    Args:
        source: the file, for the log.
        schema: a section, or another model of pydantic's.
        values: the values as they were stored.
    """
    fields = dict(schema.model_fields)
    if issubclass(schema, RegisteredSection):
        fields |= schema.entry_fields()
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in fields:
            found[key] = _complete_value(source, fields[key], value)
        else:
            _name_unknown(source, schema, key)
    for key, field in fields.items():
        was = [rule for rule in field.metadata if isinstance(rule, Was)]
        if key not in found and was:
            found[key] = was[0].value
    return found


def _complete_value(source: object, field: FieldInfo, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    members = list(sections(field.annotation))
    if not members:
        return value
    return complete(source, _member(members, value), value)


def _member(members: list[type[Section]], values: Mapping[str, Any]) -> type[Section]:
    """Return the section of a union that these values are of."""
    if Model in members:
        return Model if values.get("network", "unet") == "unet" else MonaiModel
    if Data in members:
        return PhantomData if values.get("layout") == "phantom" else Data
    if TensorBoard in members:
        kinds: dict[Any, type[Section]] = {"mlflow": MLflow, "wandb": Wandb}
        return kinds.get(str(values.get("name")), TensorBoard)
    return members[0]


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose keys have the names that they have now."""
    found = {}
    for key, value in config.items():
        found[key] = dict(value) if isinstance(value, dict) else value
    for old, new in RENAMED.items():
        section, _, key = old.partition(".")
        if not key or key not in (found.get(section) or {}):
            continue
        value = found[section].pop(key)
        if "=" in new:  # an action, which is nothing of the run itself
            continue
        new_section, _, new_key = new.partition(".")
        found.setdefault(new_section, {})[new_key] = value
        if not found[section]:
            del found[section]
    return found


def _name_unknown(source: object, schema: type[BaseModel], key: str) -> None:
    needed = ""
    if schema.__name__ == "Loss":
        needed = "; if an extension defines this term, give extensions=[FILE]"
    if (str(source), key) not in _named:
        _named.add((str(source), key))
        log.warning("%s: %s is not known here and is ignored%s", source, key, needed)


def check_extensions_known(source: object, config: Mapping[str, Any]) -> None:
    """Refuse a config whose skips or losses only an extension defines.

    Raises:
        ConfigError: naming the entry, and how to give the extension.
    """
    for (section, key), registry in CHOICES.items():
        given = (config.get(section) or {}).get(key)
        for name in given if isinstance(given, list) else [given]:
            if isinstance(name, str) and name not in registry:
                raise ConfigError(
                    f"{source}: {section}.{key} is {clipped(name)}, which no {registry.kind} here "
                    "is called: an extension defines it: give extensions=[FILE]"
                )
    for name, weight in (config.get("loss") or {}).items():
        if weight and name not in LOSSES and name not in Loss.model_fields:
            raise ConfigError(
                f"{source}: loss.{name} is defined by an extension: give extensions=[FILE]"
            )


def _check_sections(source: object, config: Mapping[str, Any]) -> None:
    """Refuse a config in which another value stands where a section does.

    Raises:
        ConfigError: naming it.
    """
    old = {key.partition(".")[0] for key in RENAMED if "." in key}
    for name, value in config.items():
        field = Train.model_fields.get(name)
        is_section = field is not None and any(sections(field.annotation))
        is_empty = value is None and not is_section
        if (is_section or name in old) and not isinstance(value, dict) and not is_empty:
            raise ConfigError(f"{source}: {name} is {clipped(value)}, but must be a group of keys")


def reason(error: ValueError) -> str:
    """Return what is wrong in one line: of a schema's error the place and the message."""
    if not isinstance(error, ValidationError):
        return clipped(first_line(error))
    details = error.errors(include_input=False)[0]
    place = ".".join(str(part) for part in details["loc"])
    return clipped(f"{place}: {details['msg']}".removeprefix(": "), 300)
