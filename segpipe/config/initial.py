"""Where the weights of a training come from: the group `init`, and its short form `init=PATH`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from segpipe.config.quoting import literal, parse, text_of
from segpipe.config.section import Section, Was
from segpipe.errors import ConfigError

KEY = "init.checkpoint"
NOTHING: dict[str, Any] = {"checkpoint": None, "freeze": "none", "lr_scale": 1.0, "channels": None}


class InitOptions(Section):
    """Weights that a training starts from."""

    checkpoint: Annotated[Path | None, Was(None)] = Field(
        description="run, fold or checkpoint to start from, in short init=RUN: spacing, "
        "intensities, patch and network are its own; null = from random weights"
    )
    freeze: Annotated[Literal["none", "encoder"], Was("none")] = Field(
        description="encoder = what was loaded of the encoder of a U-Net is not trained"
    )
    lr_scale: Annotated[float, Was(1.0)] = Field(
        gt=0,
        le=1,
        description="share of the learning rate for weights that were loaded; optim.warmup is "
        "the warm-up of all",
    )
    channels: Annotated[dict[str, str] | None, Was(None)] = Field(
        description="channel of the dataset -> channel of the checkpoint whose filters it takes, "
        "as {FLAIR:T2}; null = that of the same name, else the mean of all"
    )

    @model_validator(mode="after")
    def _has_what_it_changes(self) -> "InitOptions":
        if self.checkpoint is None and (self.freeze != "none" or self.channels):
            key = "freeze" if self.freeze != "none" else "channels"
            raise ValueError(f"init.{key} is for weights that are loaded: give init=RUN")
        return self


def pinned(words: Sequence[str]) -> list[str]:
    """Return overrides whose `init.checkpoint` is there, and stays the same through a sweep.

    A link, such as `runs/latest`, is replaced by what it points to: each run moves that link.

    Raises:
        ConfigError: if there is no such file or folder.
    """
    found = []
    for word in words:
        is_it = word.startswith(f"{KEY}=")
        found.append(f"{KEY}={','.join(map(_pinned_path, _values(word)))}" if is_it else word)
    return found


def _values(word: str) -> list[str]:
    """Return the values of an override, several of a sweep; an empty string for null."""
    override = parse(word)
    if not override.is_sweep_override():
        return ["" if override.value() is None else text_of(word)]
    values = []
    for value in override.sweep_string_iterator():
        part = f"{KEY}={value}"
        values.append("" if parse(part).value() is None else text_of(part))
    return values


def _pinned_path(text: str) -> str:
    if not text:
        return "null"
    path = Path(text)
    if not path.exists():
        raise ConfigError(f"init={text}: no such run or checkpoint")
    real = Path(os.path.realpath(path))
    if real == path.absolute():
        return literal(text)
    here = Path.cwd()
    return literal(str(real.relative_to(here) if real.is_relative_to(here) else real))
