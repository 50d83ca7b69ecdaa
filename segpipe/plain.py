"""Plain values from files that anybody may have written: text, JSON and YAML, within bounds."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from segpipe.errors import ConfigError

MOST_BYTES = 2**29  # of a text file
MOST_VALUES = 2_000_000
MOST_NESTED = 32


def read_text(file: Path, most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file of some kilobytes or megabytes, in UTF-8.

    Raises:
        ConfigError: if it cannot be read, or is larger than any that is written here.
    """
    try:
        size = file.stat().st_size
        if size > most_bytes or not file.is_file():
            raise ConfigError(f"{file}: is no file of at most {most_bytes} bytes ({size} bytes)")
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: cannot be read (is no text in UTF-8)") from None


def read_json(file: Path) -> Any:
    """Return the plain values of a JSON file.

    Raises:
        ConfigError: if it cannot be read, or holds something else.
    """
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{file}: is not JSON ({reason})") from None


def plain(source: object, values: Any) -> Any:
    """Return a copy of plain values, in which every list is one of its own.

    Lists that hold each other many times over, as a file of a few bytes can describe them, are not
    followed without end.

    Raises:
        ConfigError: if there are too many, they are nested too deeply, or other than plain ones.
    """
    return _copy(source, values, 0, count())


def _copy(source: object, value: Any, depth: int, number: Iterator[int]) -> Any:
    if depth > MOST_NESTED or next(number) > MOST_VALUES:
        raise ConfigError(f"{source}: is nested too deeply, or holds too many values")
    if isinstance(value, dict):
        copied = {}
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{source}: holds a key that is no text ({type(key).__name__})")
            copied[key] = _copy(source, inner, depth + 1, number)
        return copied
    if isinstance(value, list | tuple):
        return [_copy(source, inner, depth + 1, number) for inner in value]
    if isinstance(value, int) and value.bit_length() > 63:
        raise ConfigError(f"{source}: holds a whole number of {value.bit_length()} bits")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{source}: holds a value of type {type(value).__name__}, which is not plain")
