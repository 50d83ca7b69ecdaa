"""Options as the command line makes them."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from segpipe.config.compose import CONF
from segpipe.config.train import Train
from segpipe.config.validation import validate


def composed(*overrides: str) -> Train:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True)
    return validate(Train, values)  # type: ignore[arg-type]
