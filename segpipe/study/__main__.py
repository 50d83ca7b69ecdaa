"""`python -m segpipe.study COMMAND ...`: looks into networks, trained or not; each command has its own `--help`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from segpipe.cli import Run, launch
from segpipe.config.probe import Depth, Landscape, Lesion, Probe, Report, Robustness
from segpipe.config.section import Section
from segpipe.config.validation import validate
from segpipe.text import nearest

USAGE = """\
Looks into networks, and compares those of a sweep.

  python -m segpipe.study SWEEP                             the variants of a sweep: study.html, study.md, study.csv
  python -m segpipe.study lesion checkpoint=RUN             what a trained network takes from each long skip
  python -m segpipe.study landscape checkpoint=[RUN,RUN]    the loss around trained networks
  python -m segpipe.study robustness checkpoint=[RUN,RUN]   Dice of scans that are made ever worse
  python -m segpipe.study depth                             gradients of a deep network at initialisation

Each has a page of its own: python -m segpipe.study lesion --help"""
P = TypeVar("P", bound=Probe)
WRONG_USAGE = 2
NOTHING = 1  # to report


def _lesion(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Lesion, values)
    from segpipe.probe.lesion import (
        lesion,  # torch and MONAI take seconds to import: only after the check
    )

    return _logged(lesion, options, "lesion")


def _landscape(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Landscape, values)
    from segpipe.probe.landscape import landscape

    return _logged(landscape, options, "landscape")


def _robustness(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Robustness, values)
    from segpipe.probe.robustness import robustness

    return _logged(robustness, options, "robustness")


def _depth(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Depth, values)
    from segpipe.probe.depth import depth
    from segpipe.terminal import logged_to

    with logged_to(options.output / "depth.log"):
        return depth(options)


def _report(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Report, values)
    from segpipe.study.report import report
    from segpipe.terminal import logged_to

    assert options.sweep is not None
    with logged_to(options.sweep / "study.log"):
        return 0 if report(options.sweep, options) else NOTHING


def _logged(command: Callable[[P], int], options: P, name: str) -> int:
    """Runs a command whose log file lies with what it writes."""
    from segpipe.probe.trained import output_folder
    from segpipe.terminal import logged_to

    with logged_to(output_folder(options, name) / f"{name}.log"):
        return command(options)


COMMANDS: dict[str, tuple[type[Section], Run]] = {
    "report": (Report, _report),
    "lesion": (Lesion, _lesion),
    "landscape": (Landscape, _landscape),
    "robustness": (Robustness, _robustness),
    "depth": (Depth, _depth),
}


def main() -> None:
    """Runs the command that is the first argument on the options that follow."""
    name = sys.argv[1] if sys.argv[1:] else "--help"
    if name in ("--help", "-h"):
        print(USAGE)
        return
    if name not in COMMANDS and Path(name).is_dir():  # the folder of a sweep is what `report` takes
        sys.argv[1:2] = ["report", f"sweep='{name}'"]
        name = "report"
    if name not in COMMANDS:
        hint = nearest(name, list(COMMANDS))
        print(f"segpipe.study: {name} is none of {', '.join(COMMANDS)}.{hint}", file=sys.stderr)
        sys.exit(WRONG_USAGE)
    del sys.argv[1]
    launch(name, *COMMANDS[name], f"python -m segpipe.study {name}")


if __name__ == "__main__":
    main()
