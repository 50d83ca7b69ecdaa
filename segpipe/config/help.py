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
from segpipe.config.section import OneOf, Section, Unit
from segpipe.config.validation import keys
from segpipe.errors import ConfigError
from segpipe.text import nearest

WIDTH = 110
GLOBAL = "# @package _global_\n"  # Hydra's word for a file that sets keys outside its own group
SWEPT = "hydra.sweeper.params."
USAGE = {
    "train": """\
Trains a segmentation network on a folder of scans.

  {command}                                          on a generated phantom, no data needed
  {command} data=decathlon data.root=DIR             on a local dataset (layouts: data/README.md)
  {command} -m model.long_skips=none,add,concat      one run for each value (a sweep)
  {command} study=long_skips                         a study: variants and seeds, and a report with statistics
  {command} resume=runs/NAME/DATE_TIME               goes on where a run, or a sweep, stopped
  {command} --help model.long_skips                  which values a key can take; so for a group, or a choice
  {command} --cfg job                                every value, as it would be used""",
    "predict": """\
Writes a mask for each scan, on the scan's own grid.

  {command} checkpoint=runs/NAME/DATE_TIME input=SCANS output=MASKS
  {command} --help overlap                           which values a key can take

Exit status: 0 all done, 2 wrong usage or config, 3 some scans failed (listed), 1 anything else.""",
    "lesion": """\
What a trained network takes from each of its long skips: Dice and NSD lost without it, with no training.

  {command} checkpoint=runs/NAME/DATE_TIME

A U-Net's levels are named; of MONAI's networks those can be looked into whose skips enter a module of their own:
UNet, AttentionUnet, BasicUNet, BasicUNetPlusPlus, DynUNet, VNet, UNETR and SwinUNETR.""",
    "landscape": """\
The loss around trained networks, along random directions in which every filter keeps its weight (Li 2018).

  {command} checkpoint=[RUN,RUN] max_time=00:00:05:00

Directions move the weights of convolutions and linear layers, filter by filter: of what makes one output channel, which
is the second axis of a transposed convolution. Biases, norms and running statistics stay as they are.""",
    "robustness": """\
Dice of trained networks against ever more blur, noise, bias field and lost resolution.

  {command} checkpoint=[RUN,RUN]""",
    "report": """\
Compares the variants of a sweep: study.html, study.md and study.csv in its folder.

  {command} sweep=runs/NAME/DATE_TIME""",
    "card": """\
What a checkpoint says of itself: labels, plan, data, Dice, and the command to use it.

  {command} checkpoint=runs/NAME/DATE_TIME""",
    "export": """\
Writes a trained network as ONNX, for any batch and any size that it can halve, and checks it against torch.

  {command} checkpoint=runs/NAME/DATE_TIME output=network.onnx""",
    "depth": """\
The gradient of each layer of a deep network at initialisation, with and without each kind of skip.

  {command}
  {command} model.activation=elu init=he""",
}


@dataclass(frozen=True)
class Choice:
    """A file of a group, as in `model=unet2d`.

    Attributes:
        group: the folder's name.
        name: the file's.
        line: the first line of its comment.
        sets: what it sets itself, by dotted key; of a study also the values that it goes through.
    """

    group: str
    name: str
    line: str
    sets: dict[str, Any]


def choices(group: str) -> list[Choice]:
    """The choices of a group; files that begin with `_` are only for the others to build on."""
    return [_choice(file) for file in sorted((CONF / group).glob("[!_]*.yaml"))]


def _choice(file: Path) -> Choice:
    text, group = file.read_text(encoding="utf-8"), file.parent.name
    everywhere = text.startswith(GLOBAL)
    line = text.removeprefix(GLOBAL).partition("\n")[0]
    values = {key: value for key, value in yaml.safe_load(text).items() if key != "defaults"}
    sets = {
        key.removeprefix(SWEPT): value
        for key, value in _leaves(values, "" if everywhere else f"{group}.")
    }
    return Choice(group, file.stem, line.removeprefix("# ") if line.startswith("# ") else "", sets)


def _leaves(values: dict[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def page(program: str, command: str, schema: type[Section], about: Sequence[str] = ()) -> str:
    """All groups and keys, or those that `about` names: a key, a group, a choice, or a part of a key's name.

    Raises:
        ConfigError: if it names nothing.
    """
    known, groups, values = dict(keys(schema)), chosen(program), defaults(program)
    if about:
        return "\n".join(line for word in about for line in _answer(word, known, groups, values))
    lines = [USAGE[program].format(command=command), ""]
    if groups:
        lines += ["Groups (GROUP=CHOICE); the default is marked *:"]
        lines += [line for group, default in groups.items() for line in _group(group, default)] + [
            ""
        ]
    lines += ["Keys (KEY=VALUE), each with its default, [its type and unit] and its meaning:"]
    return "\n".join(
        [*lines, *(line for key, field in known.items() for line in _key(key, field, values))]
    )


def _answer(
    word: str, known: dict[str, FieldInfo], groups: dict[str, str], values: Any
) -> list[str]:
    name, _, choice = word.lstrip("+~").partition("=")
    for one in choices(name) if choice and name in groups else []:
        if one.name == choice:
            return [
                f"{name}={choice}",
                *_wrapped(one.line),
                *(f"      {key}={_text(one.sets[key])}" for key in one.sets),
            ]
    if name in known:
        sets = [
            f"      {one.group}={one.name} sets {_text(one.sets[name])}" for one in _setting(name)
        ]
        return [*_key(name, known[name], values), *sets]
    group = _group(name, groups[name]) if name in groups else []
    inside = [key for key in known if key.startswith(f"{name}.")] or [
        key for key in known if name in key and not group
    ]
    if not inside and not group:
        raise ConfigError(
            f"--help {word}: is no key and no group.{nearest(name, [*known, *groups])}"
        )
    return [*group, *(line for key in inside for line in _key(key, known[key], values))]


def _setting(key: str) -> list[Choice]:
    """The choices that give a key a value; none for a key of no group."""
    return [one for one in choices(key.partition(".")[0]) if key in one.sets]


def _group(group: str, default: str) -> list[str]:
    found = choices(group)
    widest = max(len(one.name) for one in found)
    mark = {default: "*"}
    title = group
    return [
        f"  {title}",
        *(f"  {mark.get(one.name, ' ')} {one.name.ljust(widest)}  {one.line}" for one in found),
    ]


def _key(key: str, field: FieldInfo, values: Any) -> list[str]:
    unit = "".join(f", {extra}" for extra in field.metadata if isinstance(extra, Unit))
    line = f"  {key}={_default(values, key)}  [{_type(field.annotation, field.metadata)}{unit}]"
    return [line, *_wrapped(field.description or "")]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
    )


def _default(values: Any, key: str) -> str:
    for part in key.split("."):
        if part not in values:  # a section of another kind
            return "|".join(f"({one.group}={one.name})" for one in _setting(key))
        values = values[part]
    return _text(values)


def _text(value: Any) -> str:
    """A value as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace("'", "").replace(" ", "")


def _type(annotation: Any, rules: Iterable[Any] = ()) -> str:
    """A type in words, with the rules of `annotated_types` that the schema puts on it."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(members[0], [*members[1:], *rules])
    if origin is Literal:
        return "|".join(str(member) for member in members)
    if origin is list:
        return f"list {_count(rules)}of {_type(members[0])}"
    registries = [rule.registry for rule in rules if isinstance(rule, OneOf)]
    if registries:
        return "|".join(registries[0])
    if origin is dict:
        return f"map of text to {_type(members[1])}"
    if members:
        return " or ".join(
            "null" if member is NoneType else _type(member, rules) for member in members
        )
    words = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true|false",
        Path: "path",
        Any: "anything",
    }
    return (words | {timedelta: "DD:HH:MM:SS"})[annotation] + _bounds(rules)


def _count(rules: Iterable[Any]) -> str:
    least, most = _rule(rules, "min_length"), _rule(rules, "max_length")
    if least == most:
        return "" if least is None else f"({least}) "
    return f"({least} or more) " if most is None else f"({least} to {most}) "


def _bounds(rules: Iterable[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {bound}"
        for name, sign in signs.items()
        if (bound := _rule(rules, name)) is not None
    ]
    return f" {' and '.join(found)}" if found else ""


def _rule(rules: Iterable[Any], name: str) -> Any:
    single = [
        one for rule in rules for one in (rule.metadata if isinstance(rule, FieldInfo) else [rule])
    ]
    return next((getattr(rule, name) for rule in single if hasattr(rule, name)), None)
