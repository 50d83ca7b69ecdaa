"""What a folder says of the run in it: a run or a sweep that was stopped goes on with the config it began with."""

import json
from pathlib import Path
from typing import Any

from segpipe.config.compose import sweep_overrides
from segpipe.errors import ConfigError

SHOWN = (
    "page",
    "verbose",
)  # what is shown of a run, rather than the run itself: may be changed with resume=


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
        elif key != "resume" and key.split(".")[0] not in SHOWN:
            raise ConfigError(
                f"{key}: a resumed run keeps its config; only trainer.*, page.* and verbose can be changed with resume="
            )
    # a section that segpipe has learnt since then has its default
    return values | saved | {key: values[key] for key in ("resume", *SHOWN)}


def begun(folder: Path, overrides: list[str]) -> Path | None:
    """The folder, where the run of these overrides was stopped in it, and can go on.

    Raises:
        ConfigError: if another run is in it, whose files would be written over.
    """
    record = folder / "environment.json"
    if not record.is_file():
        return None
    were = json.loads(record.read_text())["overrides"]
    if were != overrides:
        raise ConfigError(
            f"{folder} holds the run of {' '.join(were) or 'no overrides'}: choose another folder"
        )
    return folder if (folder / "checkpoints" / "last.ckpt").is_file() else None


def is_done(folder: Path) -> bool:
    """Whether the run in a folder was trained and scored to its end."""
    return (folder / "validation.csv").is_file() and (folder / "curves.png").is_file()


def command_line(typed: list[str]) -> list[str]:
    """The words behind `train.py`, where `resume=FOLDER` stands for what started the run or the sweep in that folder.

    Raises:
        ConfigError: if a sweep is to go on with other overrides than it began with.
    """
    folders = [Path(word.removeprefix("resume=")) for word in typed if word.startswith("resume=")]
    if not folders or str(folders[-1]) == "null":
        return typed
    folder = folders[-1]
    if not (folder / "multirun.yaml").is_file():
        return [
            *typed,
            f"hydra.run.dir='{folder}'",
        ]  # it goes on in its own folder, not in a new one
    if more := [
        word
        for word in typed
        if not word.startswith("resume=") and word not in ("-m", "--multirun")
    ]:
        raise ConfigError(
            f"{more[0]}: a sweep that goes on keeps its overrides; give resume={folder} alone"
        )
    task, of_hydra = sweep_overrides(folder)
    kept = [word for word in of_hydra if not word.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    return ["-m", *task, *kept, f"hydra.sweep.dir='{folder}'"]
