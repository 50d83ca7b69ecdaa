"""Options as the command line makes them."""

from functools import cache
from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from segpipe.config.compose import hydra_on_conf
from segpipe.config.model import Model
from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.registry import AUGMENTATIONS, LOSSES


def composed(*overrides: str) -> Train:
    """Return the options of a training; the same object for the same words, since it is frozen."""
    return _composed(overrides, (*LOSSES, *AUGMENTATIONS))


@cache
def _composed(overrides: tuple[str, ...], _keys: tuple[str, ...]) -> Train:
    """Compose and validate; what an extension has registered adds keys."""
    with hydra_on_conf():
        values = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True)
    return validate(Train, values)  # type: ignore[arg-type]


def network(*overrides: str) -> Any:
    """Return the options of the network, of a CPU's size where they leave that to the plan."""
    model = composed(*overrides).model
    return model.small() if isinstance(model, Model) else model
