"""Go on with a run or a sweep that was stopped, with the config that it began with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.config.compose import sweep_overrides
from segpipe.config.initial import pinned
from segpipe.config.quoting import literal, text_of
from segpipe.errors import ConfigError
from segpipe.plain import read_json
from segpipe.stored import read_config, read_record, read_yaml

SHOWN = ("page", "verbose")  # options of what is shown of a run; may be changed with resume=
FREE = ("resume", "resume_changed", "extensions", *SHOWN)
MOVED = (
    "data.root",
    "data.cache",
    "data.cache_gib",
    "data.workers",
)  # what another machine has elsewhere
RETYPED = ("extensions=", "resume_changed=")  # what is typed anew when a run or sweep goes on


@dataclass(frozen=True)
class Typed:
    """What `environment.json` says of how a run was started.

    Attributes:
        overrides: the words after `train.py`.
    """

    overrides: list[str]


def resumed(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return the config of the run that `values["resume"]` names, under what may be changed.

    Extensions are never taken from the run's folder: they must be typed again.

    Raises:
        ConfigError: if another key is overridden, since the run would no longer be the one that
            was started, or if an extension of the run is not given.
    """
    if values["resume"] is None:
        return values
    file = Path(values["resume"]) / "config.yaml"
    stored = read_yaml(file)
    named = stored.get("extensions")
    _check_extensions(file, named if isinstance(named, list) else [], values["extensions"])
    saved = read_config(file, stored)
    for override in overrides:
        key = override.split("=")[0].lstrip("+")
        if key.startswith("trainer."):
            option = key.removeprefix("trainer.")
            saved.setdefault("trainer", {})[option] = values["trainer"][option]
        elif key in MOVED:
            option = key.removeprefix("data.")
            saved.setdefault("data", {})[option] = values["data"][option]
        elif key.split(".")[0] not in FREE:
            raise ConfigError(
                f"{key}: a resumed run keeps its config; only trainer.*, page.*, verbose, "
                f"{', '.join(MOVED)} can be changed with resume="
            )
    kept = {key: values[key] for key in FREE}
    return values | saved | kept


def _check_extensions(source: Path, saved: list[Any], typed: list[str]) -> None:
    given = [Path(name).name for name in typed]
    if any(Path(str(name)).name not in given for name in saved):
        raise ConfigError(
            f"{source}: was started with extensions=[{','.join(map(str, saved))}]: give them "
            "again; code that a folder names is never run"
        )


def resumable(folder: Path, overrides: list[str]) -> Path | None:
    """Return the folder if the run of these overrides was stopped in it and can go on.

    Raises:
        ConfigError: if another run is in it, whose files would be overwritten.
    """
    record = folder / "environment.json"
    if not record.is_file():
        return None
    before = read_record(record, Typed).overrides
    if _without_retyped(before) != _without_retyped(overrides):
        raise ConfigError(
            f"{folder} holds the run of {' '.join(before) or 'no overrides'}: choose another folder"
        )
    return folder if (folder / "checkpoints" / "last.ckpt").is_file() else None


def _without_retyped(words: list[str]) -> list[str]:
    """Return overrides without those of `RETYPED`."""
    return [word for word in words if not word.startswith(RETYPED)]


def is_done(folder: Path) -> bool:
    """Return whether the run in a folder was trained and scored to its end.

    Its report is written last, once post-processing and quality are in its checkpoints; the report
    of a run that ended early says so. A run without a report is of version 0.1.0, or was killed.
    """
    is_scored = (folder / "validation.csv").is_file() and (folder / "curves.png").is_file()
    report = folder / "report.json"
    if not is_scored or not report.is_file():
        return is_scored and _is_old(folder)
    try:
        content = read_json(report)
    except ConfigError:  # damaged: it is made anew
        return False
    return isinstance(content, dict) and not content.get("stopped")


def _is_old(folder: Path) -> bool:
    """Return whether a run is of before its files carried a schema version."""
    config = folder / "config.yaml"
    return config.is_file() and not config.read_text(encoding="utf-8").startswith("schema:")


def check_done(folder: Path) -> None:
    """Check that the checkpoints of a run that is done are whole.

    Raises:
        ConfigError: if one is damaged.
    """
    from segpipe import archive  # torch, which is needed here alone, takes seconds to import

    for file in sorted((folder / "checkpoints").glob("*.ckpt")):
        try:
            archive.read(file)
        except ConfigError as error:
            raise ConfigError(
                f"{error}; the run in {folder} is done, but to go on with it, or to predict with "
                "that checkpoint, train it again in another folder"
            ) from None


def command_line(typed: list[str]) -> list[str]:
    """Return the words after `train.py`, with `resume=FOLDER` replaced by what started it.

    Raises:
        ConfigError: if a sweep is to go on with other overrides than it began with, or there is
            no checkpoint to start from.
    """
    named = [word for word in typed if word.startswith("resume=")]
    if not named or named[-1] == "resume=null":
        return pinned(typed)
    folder = Path(text_of(named[-1]))
    if not (folder / "multirun.yaml").is_file():
        return [*typed, f"hydra.run.dir={literal(str(folder))}"]  # in its own, not in a new one
    return _sweep_line(folder, typed)


def _sweep_line(folder: Path, typed: list[str]) -> list[str]:
    retyped = [word for word in typed if word.startswith(RETYPED)]
    for word in typed:
        if not word.startswith(("resume=", *RETYPED)) and word not in ("-m", "--multirun"):
            raise ConfigError(
                f"{word}: a sweep that goes on keeps its overrides; give resume={folder} alone"
            )
    task, of_hydra = sweep_overrides(folder)
    if not any(word.startswith("extensions=") for word in retyped):
        named = [word for word in task if word.startswith("extensions=")]
        if named:
            raise ConfigError(
                f"{folder}: was started with {named[0]}: give it again; code that a folder names "
                "is never run"
            )
    task = _without_retyped(task)
    kept = [word for word in of_hydra if not word.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    return ["-m", *task, *retyped, *kept, f"hydra.sweep.dir={literal(str(folder))}"]
