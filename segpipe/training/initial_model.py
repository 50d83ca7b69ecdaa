"""The network of a run that starts from trained weights: the checkpoint's, whatever the preset."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from segpipe.config.compose import defaults
from segpipe.config.model import AnyModel, Model, ModelChoice
from segpipe.errors import ConfigError

log = logging.getLogger("segpipe")
# options that change no weights but those of heads: they are the run's own
OWN = ("dropout", "skip_dropout", "deep_supervision")


def model_of(config: Mapping[str, Any]) -> AnyModel:
    """Return the network of a run's config; its channels are those that matching found."""
    model = TypeAdapter(ModelChoice).validate_python(config["model"])
    return model.model_copy(update={"match": "none"}) if isinstance(model, Model) else model


def with_own(model: AnyModel, given: AnyModel, overrides: Sequence[str], source: str) -> AnyModel:
    """Return the checkpoint's network with those options of a run that change no weights.

    Raises:
        ConfigError: if another option is given and differs.
    """
    typed = {word.partition("=")[0].lstrip("+") for word in overrides}
    usual = defaults("train")["model"]
    kept = model.model_dump()
    own: dict[str, Any] = {}
    differing: list[str] = []
    for key, value in given.model_dump().items():
        if key not in kept or kept[key] == value:
            continue
        is_typed = f"model.{key}" in typed
        is_given = is_typed or ("model" not in typed and value != usual.get(key))
        if key in OWN:
            own |= {key: value} if is_given else {}
        elif is_given or (key in ("network", "dims") and "model" in typed):
            raise ConfigError(
                f"model.{key} is {_shown(value)}, but the weights of {source} are for "
                f"{_shown(kept[key])}: leave it out, or train without init"
            )
        elif "model" in typed:
            differing.append(f"{key} {_shown(kept[key])}")
    if differing:
        log.warning(
            "init: the network is that of %s, not of the preset: %s", source, ", ".join(differing)
        )
    return model.model_copy(update=own)


def _shown(value: object) -> str:
    return str(value).replace("'", "").replace(" ", "")


def check_plan_keys(overrides: Sequence[str]) -> None:
    """Refuse keys of which a plan that comes from a checkpoint makes no use.

    Raises:
        ConfigError: naming the first.
    """
    for word in overrides:
        key = word.partition("=")[0]
        if key in ("plan.ceiling", "plan.short_ceiling"):
            raise ConfigError(
                f"{key} is for a derived spacing, but with init it is that of the "
                "checkpoint: leave it out, or give plan.spacing"
            )
