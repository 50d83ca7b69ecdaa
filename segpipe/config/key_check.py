"""Keys that a command line sets: each must be one of the schema or a group of `conf/`."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_origin

from pydantic.fields import FieldInfo

from segpipe.config.renamed import RENAMED
from segpipe.config.section import Section
from segpipe.config.validation import keys
from segpipe.errors import ConfigError
from segpipe.text import nearest


def check_keys(overrides: Sequence[str], schema: type[Section], folders: list[Path]) -> None:
    """Check that every word of a command line sets a key or chooses of a group.

    Args:
        overrides: the words.
        schema: the schema of the command's options.
        folders: the folders of config files, in which the groups are folders.

    Raises:
        ConfigError: for the first that does not.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in OverridesParser.create().parse_overrides(list(overrides)):
        _check_key(override.key_or_group, override.is_delete(), schema, folders)


def _check_key(key: str, deleted: bool, schema: type[Section], folders: list[Path]) -> None:
    if key.split(".")[0] == "hydra" or key.startswith("hydra/"):
        return
    known = dict(keys(schema))
    groups = set()
    for folder in folders:
        groups |= {path.name for path in folder.iterdir() if path.is_dir()}
    if deleted:
        raise ConfigError(
            f"~{key}: a key cannot be taken away; set it to null where its help allows that"
        )
    if key in known or key in groups:
        return
    if key in RENAMED:
        raise ConfigError(f"{key} has a new name: {RENAMED[key]}")
    inside = [name for name, field in known.items() if _is_mapping(field)]
    if not any(key.startswith(f"{name}.") for name in inside):
        hint = nearest(key, [*known, *groups])
        raise ConfigError(f"{key} is not a key.{hint} (--help lists all)")


def _is_mapping(field: FieldInfo) -> bool:
    members = (field.annotation, *get_args(field.annotation))
    return any(get_origin(member) is dict for member in members)
