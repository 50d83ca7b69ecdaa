"""Options as the command line makes them."""

from hydra import compose
from omegaconf import OmegaConf

from segpipe.config.compose import hydra_on_conf
from segpipe.config.train import Train
from segpipe.config.validation import validate


def composed(*overrides: str) -> Train:
    with hydra_on_conf():
        values = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True)
    return validate(Train, values)  # type: ignore[arg-type]
