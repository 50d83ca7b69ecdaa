"""The page that `--help` prints, made from the schema so that it cannot drift."""

import textwrap
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from segpipe.config.compose import CONF, defaults, keys
from segpipe.config.section import Section

USAGE = {
    "train": """\
Trains a segmentation network on a folder of scans.

  {command}                                          on a generated phantom, no data needed
  {command} data=decathlon data.root=DIR             on a local dataset (layouts: data/README.md)
  {command} -m model.long_skips=none,add,concat      one run for each value (a sweep)
  {command} resume=runs/NAME/DATE_TIME               goes on where a run stopped""",
    "predict": """\
Writes a mask for each scan, on the scan's own grid.

  {command} checkpoint=runs/NAME/DATE_TIME input=SCANS output=MASKS

Exit status: 0 all done, 2 wrong usage or config, 3 some scans failed (listed), 1 anything else.""",
}


def page(program: str, command: str, schema: type[Section]) -> str:
    """Usage, groups with their choices, and every key with its type, default and one line of help."""
    lines = [USAGE[program].format(command=command), ""]
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir())
    if program == "train":
        lines += ["Groups (GROUP=CHOICE):"]
        lines += [f"  {group.name}={'|'.join(_choices(group))}" for group in groups] + [""]
    lines += ["Keys (KEY=VALUE), each with its default:"]
    values = defaults(program)
    for key, field in keys(schema):
        lines.append(f"  {key}={_shown(values, key)}  [{_type(field.annotation)}]")
        lines += textwrap.wrap(field.description or "", 104, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _choices(group: Any) -> list[str]:
    return sorted(path.stem for path in group.glob("*.yaml") if not path.stem.startswith("_"))


def _shown(values: Any, key: str) -> str:
    for part in key.split("."):
        if part not in values:
            return "(model=monai)"
        values = values[part]
    written = {None: "null", True: "true", False: "false"}
    return (
        written[values] if values is None or isinstance(values, bool) else str(values).replace("'", "").replace(" ", "")
    )


def _type(annotation: Any) -> str:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(str(member) for member in members)
    if origin is list:
        return f"list of {_type(members[0])}"
    if origin is dict:
        return f"map of text to {_type(members[1])}"
    if origin is Annotated:
        return _type(members[0])
    if members:
        return " or ".join("null" if member is NoneType else _type(member) for member in members)
    words = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true|false",
        Path: "path",
        timedelta: "duration",
        Any: "anything",
    }
    return words[annotation]
