"""A resumed run keeps the config it began with; only how long and on what it runs may change."""

from pathlib import Path
from typing import Any

from segpipe.errors import ConfigError


def resumed(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The config of the run that `values["resume"]` names, with the `trainer.*` overrides on top.

    Raises:
        ConfigError: if another key is overridden, since the run would no longer be the one that was started.
    """
    if values["resume"] is None:
        return values
    import yaml

    saved = yaml.safe_load((Path(values["resume"]) / "config.yaml").read_text())
    for override in overrides:
        key = override.split("=")[0].lstrip("+")
        if key.startswith("trainer."):
            option = key.removeprefix("trainer.")
            saved["trainer"][option] = values["trainer"][option]
        elif key != "resume":
            raise ConfigError(f"{key}: a resumed run keeps its config; only trainer.* can be changed with resume=")
    return saved | {"resume": values["resume"]}
