"""Names of files as people have them, quoted where Hydra would read something else, or nothing."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from segpipe.config.hydra_flags import parse_flags
from segpipe.config.section import NamesFiles, Section
from segpipe.config.validation import keys
from segpipe.errors import ConfigError
from segpipe.text import first_line

STUDY = re.compile(r"\+?study=")  # which may be a sweep
OVERRIDE = re.compile(r"(\+{0,2})([\w./@:-]+)=(.*)", re.DOTALL)
NEEDLESS = re.compile(r"([\w.]+)='([\w./-]+)'")  # quotes around a value that is read alike without
HYDRA_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
SHOWN = 300  # characters of a word in a message
MISSING = "???"  # in OmegaConf: there is no value yet
NAMED = re.compile(r"\s*[\w.-]+\s*:")  # how an entry of a dict begins
SHORT = {"init": "init.checkpoint"}  # short forms of keys


def quoted(words: Sequence[str], schema: type[Section]) -> list[str]:
    """Return the words of a command line, with the values quoted that Hydra cannot read as meant.

    A value of a path is the path where it exists as it stands. Else it is what Hydra reads, as a
    list `[a,b]` or the values `a,b` of a sweep, each part with odd characters quoted; and where
    Hydra can read nothing, the text as it stands.

    Raises:
        ConfigError: for a word that Hydra cannot read all the same.
    """
    fields = dict(keys(schema))
    given = parse_flags(words)
    is_sweep = given.multirun or any(map(STUDY.match, words))
    return [_quoted_word(w, fields, is_sweep) if w in given.overrides else w for w in words]


def _quoted_word(word: str, fields: dict[str, FieldInfo], is_sweep: bool) -> str:
    if not _is_utf8(word):
        raise ConfigError(f"{word!a}: is not UTF-8; rename the file")
    match = OVERRIDE.fullmatch(word)
    if match is not None:
        plus, key, value = match.groups()
        key = SHORT.get(key, key) if SHORT.get(key) in fields else key
        if key in HYDRA_FOLDERS:
            value = _folder_of_hydra(value)
        elif key in fields and value.lower() not in ("", "null"):
            value = _quoted_value(value, Text.of(fields[key]), is_sweep)
        word = f"{plus}{key}={value}"
    parse(word)
    return word


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Text:
    """Whether the values of a key are text.

    Attributes:
        is_text: whether they are.
        is_path: whether they name files.
        is_list: whether they may be several.
        is_named: whether they may be several, each with a name.
    """

    is_text: bool
    is_path: bool
    is_list: bool
    is_named: bool

    @classmethod
    def of(cls, field: FieldInfo) -> "Text":
        """Return what the type of a key says."""
        members = list(_members(field.annotation))
        marked = any(isinstance(mark, NamesFiles) for mark in [*field.metadata, *members])
        is_path = Path in members or marked
        return cls(is_path or str in members, is_path, list in members, dict in members)


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the types that a type is made of, those of a dict left out."""
    origin = get_origin(annotation)
    yield origin if origin is not None else annotation
    if origin is not dict:
        for member in get_args(annotation):
            yield from _members(member)


def _quoted_value(value: str, text: Text, is_sweep: bool) -> str:
    """Return the value of a key as Hydra reads it rightly."""
    if not text.is_text:
        return value
    if text.is_path and (_exists(value) or _has_outer_space(value)):
        return literal(value)
    try:
        override = parse(f"key={value}")
    except ConfigError:
        return _quoted_parts(value, text, is_sweep)
    if override.is_sweep_override():
        is_new = text.is_path and not is_sweep and not any(map(_exists, value.split(",")))
        return literal(value) if is_new else value
    read = override.value()
    if isinstance(read, list) and text.is_list:
        is_plain = all(isinstance(part, str) for part in read)
        return value if is_plain else _quoted_parts(value, text, is_sweep)
    if isinstance(read, dict) and text.is_named:
        return value
    return literal(value) if text.is_path and not isinstance(read, str) else value


def _has_outer_space(value: str) -> bool:
    """Return whether a name begins or ends with a blank, which Hydra would drop."""
    is_list_or_quoted = value.strip()[:1] in ("[", "'", '"')
    return value != value.strip() and bool(value.strip()) and not is_list_or_quoted


def _quoted_parts(value: str, text: Text, is_sweep: bool) -> str:
    """Return a value that Hydra cannot read, each entry of a list or a sweep quoted."""
    if text.is_list and value.startswith("[") and value.endswith("]"):
        return _quoted_list(value)
    if text.is_named and value.startswith("{") and value.endswith("}"):
        return f"{{{','.join(map(_quoted_entry, _entries(value[1:-1])))}}}"
    if is_sweep:
        return ",".join(map(literal, _parts(value)))
    is_half_a_list = text.is_list and not text.is_path  # of which Hydra says what is wrong
    return value if is_half_a_list else literal(value)


def _quoted_list(value: str) -> str:
    """Return a list in brackets, each entry quoted."""
    return f"[{','.join(map(literal, _parts(value[1:-1])))}]"


def _quoted_entry(entry: str) -> str:
    """Return `NAME:VALUE` with a quoted value, which may be a list."""
    name, _, value = entry.partition(":")
    value = value.strip()
    is_list = value.startswith("[") and value.endswith("]")
    return f"{name.strip()}:{_quoted_list(value) if is_list else literal(value)}"


def _entries(value: str) -> list[str]:
    """Return the entries `NAME:VALUE` between commas; what has no name is of the one before."""
    entries: list[str] = []
    for piece in value.split(","):
        if entries and not NAMED.match(piece):
            entries[-1] += f",{piece}"
        else:
            entries.append(piece)
    return entries


def _parts(value: str) -> list[str]:
    """Return the entries of a value between commas; a comma in a name that exists ends none."""
    pieces = value.split(",")
    parts: list[str] = []
    while pieces:
        length = 1
        for several in range(1, len(pieces) + 1):
            if _exists(",".join(pieces[:several]).strip()):
                length = several
                break
        parts.append(",".join(pieces[:length]).strip())
        pieces = pieces[length:]
    return parts


def _folder_of_hydra(value: str) -> str:
    """Return the value of a folder of Hydra, in which `${now:%Y}` and the like keep their sense."""
    try:
        parse(f"key={value}")
    except ConfigError:
        return _in_quotes(value)
    return value


def _exists(value: str) -> bool:
    return os.path.lexists(os.path.expanduser(value))


def literal(text: str) -> str:
    """Return a text as Hydra and OmegaConf read it back: in quotes, with `${` escaped.

    A text that is in quotes already stays, unless a file has this very name.
    """
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1 and not _exists(text):
        return text
    if not os.path.lexists(text):
        text = os.path.expanduser(text)
    if text == MISSING:
        text = f"./{text}"
    return _in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def typed(key: str, path: object) -> str:
    """Return an override as a user types it in a shell, as `'resume=my runs/a'`."""
    return shlex.quote(f"{key}={path}")


def as_typed(word: str) -> str:
    """Return an override without the quotes that `quoted` has put around a plain name."""
    match = NEEDLESS.fullmatch(word)
    if match is None or not isinstance(yaml.safe_load(match[2]), str):
        return word
    return f"{match[1]}={match[2]}"


def invocation(name: str) -> str:
    """Return what a user types to call a program, in the form in which this one was called.

    Args:
        name: the name of the program, such as `train`.

    Returns:
        `segpipe-train` where an installed script was called, else `python train.py`.
    """
    is_installed = Path(sys.argv[0]).name.startswith("segpipe-")
    return f"segpipe-{name}" if is_installed else f"python {name}.py"


def prediction_with(checkpoint: Path) -> str:
    """Return what a user types to predict with a run's folder or a checkpoint."""
    return f"{invocation('predict')} {typed('checkpoint', checkpoint)} input=SCANS output=MASKS"


def _in_quotes(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def parse(word: str) -> Any:
    """Return an override as Hydra's parser reads it.

    Raises:
        ConfigError: if it cannot, with the form that it can.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(_unreadable(word, first_line(error))) from None
    except RecursionError:
        raise ConfigError(_unreadable(word, "too deep")) from None


def text_of(word: str) -> str:
    """Return the value of an override as text, as in `resume='my runs/a'`.

    Raises:
        ConfigError: if it cannot be read.
    """
    from omegaconf import OmegaConf

    value = parse(word).value()
    return str(OmegaConf.create({"value": value}).value)


def _unreadable(word: str, why: str) -> str:
    key, equals, value = word[:SHOWN].partition("=")
    word = word if len(word) <= SHOWN else f"{word[:SHOWN]}..."
    if not equals or not value:
        return f"{word}: is not KEY=VALUE (--help lists all keys)"
    form = f"{key}={_in_quotes(value)}"
    in_shell = shlex.quote(form) if re.search(r'["$`\\!]', form) else f'"{form}"'
    return (
        f"{word}: cannot be read ({why[:80]}); text with such characters needs quotes: {in_shell}"
    )


def searchpath(config_dir: str | None) -> list[str]:
    """Return the override by which Hydra looks for files in a folder of the user's, too."""
    if not config_dir:
        return []
    folder = literal(f"file://{Path(config_dir).resolve()}")
    return [f"hydra.searchpath=[{folder}]"]
