"""What `--help` prints, made from the schema and from `conf/` so that it cannot drift."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from segpipe.config.compose import CONF, chosen, defaults
from segpipe.config.section import OneOf, Section, Unit, Written
from segpipe.config.usage import USAGE
from segpipe.config.validation import keys
from segpipe.errors import ConfigError
from segpipe.text import nearest

WIDTH = 100
GLOBAL = "# @package _global_\n"  # Hydra's word for a file that sets keys outside its own group
SWEPT = "hydra.sweeper.params."
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
WORDS: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true|false",
    Path: "path",
    Any: "anything",
    timedelta: "DD:HH:MM:SS",
    NoneType: "null",
}


@dataclass(frozen=True)
class Choice:
    """A file of a group, as in `model=unet2d`.

    Attributes:
        group: the name of its folder.
        name: the name of the file, without its ending.
        line: the first line of its comment.
        sets: the values that it sets, by dotted key; of a study also those that it sweeps over.
    """

    group: str
    name: str
    line: str
    sets: dict[str, Any]


def choices(group: str) -> list[Choice]:
    """Return the choices of a group, by name; files that begin with `_` are none."""
    return [_choice(file) for file in sorted((CONF / group).glob("[!_]*.yaml"))]


def _choice(file: Path) -> Choice:
    group = file.parent.name
    text = file.read_text(encoding="utf-8")
    prefix = "" if text.startswith(GLOBAL) else f"{group}."
    comment, _, _ = text.removeprefix(GLOBAL).partition("\n")
    values = yaml.safe_load(text)
    values.pop("defaults", None)
    sets = {key.removeprefix(SWEPT): value for key, value in _leaves(values, prefix)}
    line = comment.removeprefix("# ") if comment.startswith("# ") else ""
    return Choice(group, file.stem, line, sets)


def _leaves(values: dict[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def page(program: str, command: str, schema: type[Section], about: Sequence[str] = ()) -> str:
    """Return the help of all groups and keys, or of those that `about` names.

    Args:
        program: the name of its config.
        command: the command as it is called.
        schema: the schema of its options.
        about: keys, groups, choices, or parts of keys; empty for all.

    Raises:
        ConfigError: if a word of `about` names nothing.
    """
    program_help = ProgramHelp(dict(keys(schema)), chosen(program), defaults(program))
    if not about:
        return "\n".join([USAGE[program].format(command=command), "", *program_help.all_lines()])
    lines = []
    for word in about:
        lines += program_help.lines_about(word)
    return "\n".join(lines)


@dataclass(frozen=True)
class ProgramHelp:
    """The help of one program.

    Attributes:
        fields: type and help of each key.
        groups: the default choice of each group.
        values: the default values, as nested mappings.
    """

    fields: dict[str, FieldInfo]
    groups: dict[str, str]
    values: dict[str, Any]

    def all_lines(self) -> list[str]:
        """Return the lines of all groups and keys."""
        lines = []
        if self.groups:
            lines.append("Groups (GROUP=CHOICE); the default is marked *:")
            for group, default in self.groups.items():
                lines += _group_lines(group, default)
            lines.append("")
        lines.append(
            "Keys (KEY=VALUE), each with its default, [its type and unit] and its meaning:"
        )
        return lines + self._key_lines(self.fields)

    def lines_about(self, word: str) -> list[str]:
        """Return the lines of a key, a group, a choice, or the keys that a word is part of.

        Raises:
            ConfigError: if it is none of these.
        """
        name, _, choice_name = word.lstrip("+~").partition("=")
        if name in self.groups:
            for choice in choices(name):
                if choice.name == choice_name:
                    return _choice_lines(choice)
        if name in self.fields:
            return [*self._key_lines([name]), *_settings(name)]
        lines = _group_lines(name, self.groups[name]) if name in self.groups else []
        matches = [key for key in self.fields if key.startswith(f"{name}.")]
        if not matches and not lines:
            matches = [key for key in self.fields if name in key]
        if not matches and not lines:
            hint = nearest(name, [*self.fields, *self.groups])
            raise ConfigError(f"--help {word}: is no key and no group.{hint}")
        return lines + self._key_lines(matches)

    def _key_lines(self, names: Iterable[str]) -> list[str]:
        lines = []
        for name in names:
            field = self.fields[name]
            kind = _type(field.annotation, field.metadata)
            for rule in field.metadata:
                kind += f", {rule}" if isinstance(rule, Unit) else ""
            lines.append(f"  {name}={_default(self.values, name)}  [{kind}]")
            lines += _wrapped(field.description or "")
        return lines


def _settings(key: str) -> list[str]:
    """Return a line for each choice that gives a key a value."""
    lines = []
    for choice in _choices_that_set(key):
        value = _text(choice.sets[key])
        lines.append(f"      {choice.group}={choice.name} sets {value}")
    return lines


def _choices_that_set(key: str) -> list[Choice]:
    return [choice for choice in choices(key.partition(".")[0]) if key in choice.sets]


def _group_lines(group: str, default: str) -> list[str]:
    lines = [f"  {group}"]
    members = choices(group)
    width = max(len(choice.name) for choice in members)
    for choice in members:
        mark = "*" if choice.name == default else " "
        lines.append(f"  {mark} {choice.name.ljust(width)}  {choice.line}")
    return lines


def _choice_lines(choice: Choice) -> list[str]:
    lines = [f"{choice.group}={choice.name}", *_wrapped(choice.line)]
    for key, value in choice.sets.items():
        lines.append(f"      {key}={_text(value)}")
    return lines


def _wrapped(text: str) -> list[str]:
    margin = " " * 6
    return textwrap.wrap(
        text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )


def _default(values: Any, key: str) -> str:
    """Return the default of a key; of a key of another choice, the choices that have it."""
    for part in key.split("."):
        if part not in values:
            names = []
            for choice in _choices_that_set(key):
                names.append(f"({choice.group}={choice.name})")
            return "|".join(names)
        values = values[part]
    return _text(values)


def _text(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace("'", "").replace(" ", "")


def _type(annotation: Any, rules: Sequence[Any] = ()) -> str:
    """Return a type in words, with the bounds that `annotated_types` put on it.

    Args:
        annotation: the annotation of a field.
        rules: the metadata of the field.
    """
    origin = get_origin(annotation)
    members = get_args(annotation)
    registries = [rule.registry for rule in rules if isinstance(rule, OneOf)]
    for rule in rules:
        if isinstance(rule, Written):
            return rule.as_
    if origin is Annotated:
        return _type(members[0], [*members[1:], *rules])
    if origin is Literal:
        return "|".join(map(str, members))
    if origin is list:
        return f"list {_count(rules)}of {_type(members[0])}"
    if registries:
        return "|".join(registries[0])
    if origin is dict:
        return f"map of text to {_type(members[1])}"
    if members:
        return " or ".join(_type(member, rules) for member in members)
    return WORDS[annotation] + ("" if annotation is NoneType else _bounds(rules))


def _count(rules: Sequence[Any]) -> str:
    """Return how many entries a list has, in parentheses, or an empty string."""
    least = _rule(rules, "min_length")
    most = _rule(rules, "max_length")
    if least is None and most is None:
        return ""
    if least == most:
        return f"({least}) "
    return f"({least} or more) " if most is None else f"({least} to {most}) "


def _bounds(rules: Sequence[Any]) -> str:
    bounds = []
    for name, sign in SIGNS.items():
        bound = _rule(rules, name)
        if bound is not None:
            bounds.append(f"{sign} {bound}")
    return f" {' and '.join(bounds)}" if bounds else ""


def _rule(rules: Sequence[Any], name: str) -> Any:
    """Return the value of a rule of this name, or None."""
    for rule in rules:
        parts = rule.metadata if isinstance(rule, FieldInfo) else [rule]
        for part in parts:
            if hasattr(part, name):
                return getattr(part, name)
    return None
