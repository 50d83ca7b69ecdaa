"""Spans of time in the config, as `DD:HH:MM:SS`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer


def _duration(value: object) -> object:
    """Return `DD:HH:MM:SS` or `HH:MM:SS` as a time span, and any other type unchanged."""
    if isinstance(value, str):
        match = re.fullmatch(r"(?:(\d+):)?(\d+):(\d+):(\d+)", value)
        if match is None:
            raise ValueError(
                f"must read DD:HH:MM:SS (days, hours, minutes, seconds), got {value!r}"
            )
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    return value


def _written(value: timedelta | None) -> str | None:
    if value is None:
        return None
    minutes, seconds = divmod(int(value.total_seconds()), 60)
    return f"{minutes // 1440:02d}:{minutes // 60 % 24:02d}:{minutes % 60:02d}:{seconds:02d}"


Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(_written)]
