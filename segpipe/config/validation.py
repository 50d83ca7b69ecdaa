"""Checked options from plain values, and one line for the first mistake."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from segpipe.config.renamed import RENAMED
from segpipe.config.section import RegisteredSection, Section
from segpipe.errors import ConfigError
from segpipe.text import nearest

S = TypeVar("S", bound=Section)


def keys(schema: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every leaf of the schema as its dotted key, with type and help.

    Of a section of several kinds the leaves of each are yielded, of a registered section also those
    that its registry adds.
    """
    fields = dict(schema.model_fields)
    if issubclass(schema, RegisteredSection):
        fields |= schema.entry_fields()
    for name, field in fields.items():
        members = list(sections(field.annotation))
        if not members:
            yield prefix + name, field
            continue
        leaves: dict[str, FieldInfo] = {}
        for member in members:
            leaves = dict(keys(member, f"{prefix}{name}.")) | leaves
        yield from leaves.items()


def sections(annotation: Any) -> Iterator[type[Section]]:
    """Yield the sections that a key may hold: itself, or the members of its union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for member in get_args(annotation):
        yield from sections(member)


def validate(schema: type[S], values: dict[str, Any]) -> S:
    """Return plain values as checked options.

    Raises:
        ConfigError: for the first wrong key or value, in one line.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, [name for name, _ in keys(schema)])) from None


def another_choice(key: str) -> str:
    """Return what to say of a key that another choice of its group has."""
    group = key.split(".")[0]
    return f"{key} is a key, but not of the chosen {group}: take it away, or choose another {group}"


def _one_line(error: ValidationError, known: list[str]) -> str:
    details = _meant(error, known)
    key = _key(details, known)
    value = details["input"]
    match details["type"]:
        case "value_error":
            return _as_raised(details, key, known)
        case "extra_forbidden":
            return _unknown(".".join(_path(details)), known)
        case "missing":
            return f"{'.'.join(_path(details))} has no value: add it to the config"
        case "literal_error":
            expected = str(details.get("ctx", {}).get("expected", ""))
            hint = nearest(str(value), _choices(expected))
            return f"{key}{_entry(details)} is {value!r}, which is none of {expected}.{hint}"
    message = details["msg"]
    return f"{key}{_entry(details)} is {value!r}: {message[0].lower()}{message[1:]}"


def _meant(error: ValidationError, known: list[str]) -> ErrorDetails:
    """Return the error of the union member that the value came furthest in."""
    errors = error.errors()
    key = _key(errors[0], known)
    same = [details for details in errors if _key(details, known) == key]
    return max(same, key=_depth)


def _depth(details: ErrorDetails) -> tuple[int, bool]:
    entries = sum(isinstance(part, int) for part in details["loc"])
    return entries, details["type"] == "literal_error"


def _as_raised(details: ErrorDetails, key: str, known: list[str]) -> str:
    text = str(details.get("ctx", {}).get("error", details["msg"]))
    names_a_key = text.split(" ")[0] in known or "." in text.split(" ")[0]
    return text if names_a_key or key not in known else f"{key}: {text}"


def _unknown(key: str, known: list[str]) -> str:
    if key in RENAMED:
        return f"{key} has a new name: {RENAMED[key]}"
    if key in known:
        return another_choice(key)
    return f"{key} is not a key.{nearest(key, known)}"


def _choices(expected: str) -> list[str]:
    """Return the names in a text such as `'a', 'b' or 'c'`."""
    words = expected.replace(" or ", ", ").split(",")
    return [word.strip("' ") for word in words]


def _entry(details: ErrorDetails) -> str:
    """Return which entry of a list is meant, or an empty string."""
    numbers = [part for part in details["loc"] if isinstance(part, int)]
    return f" entry {numbers[-1]}" if numbers else ""


def _path(details: ErrorDetails) -> list[str]:
    """Return the parts of an error's place, without the kind of a section."""
    parts = map(str, details["loc"])
    return [part for part in parts if not part.startswith("(")]


def _key(details: ErrorDetails, known: Sequence[str]) -> str:
    """Return the longest known key that an error's place begins with.

    The place of a union's error ends with the name of the member.
    """
    parts = _path(details)
    for length in range(len(parts), 0, -1):
        key = ".".join(parts[:length])
        if key in known:
            return key
    return ".".join(parts)
