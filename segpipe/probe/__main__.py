"""`python -m segpipe.probe COMMAND ...`: measure networks; each command has its own `--help`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from segpipe.cli import Run, launch
from segpipe.config.probe import Depth, Landscape, Lesion, Probe, Robustness
from segpipe.config.section import Section
from segpipe.config.validation import validate
from segpipe.text import nearest

USAGE = """\
Measures what trained networks do, and how a deep one starts.

  python -m segpipe.probe lesion checkpoint=RUN            what each long skip gives a network
  python -m segpipe.probe landscape checkpoint=[RUN,RUN]   the loss around trained networks
  python -m segpipe.probe robustness checkpoint=[RUN,RUN]  Dice under blur, noise, bias, coarseness
  python -m segpipe.probe depth                            gradients of a deep network at its start

Each command has a help page: python -m segpipe.probe lesion --help"""
P = TypeVar("P", bound=Probe)
WRONG_USAGE = 2


# torch and MONAI take seconds to import, so each command imports its module after the check
def _lesion(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Lesion, values)
    from segpipe.probe.lesion import lesion

    return _run_logged(lesion, options, "lesion")


def _landscape(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Landscape, values)
    from segpipe.probe.landscape import landscape

    return _run_logged(landscape, options, "landscape")


def _robustness(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Robustness, values)
    from segpipe.probe.robustness import robustness

    return _run_logged(robustness, options, "robustness")


def _depth(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Depth, values)
    from segpipe.probe.depth import depth
    from segpipe.reporting.formats import figures_as
    from segpipe.terminal import logged_to

    with logged_to(options.output / "depth.log"), figures_as(options.page.figures):
        return depth(options)


def _run_logged(command: Callable[[P], int], options: P, name: str) -> int:
    """Run a command with its log file in the folder that it writes to."""
    from segpipe.probe.trained import output_folder
    from segpipe.reporting.formats import figures_as
    from segpipe.terminal import logged_to

    log_file = output_folder(options, name) / f"{name}.log"
    with logged_to(log_file), figures_as(options.page.figures):
        return command(options)


COMMANDS: dict[str, tuple[type[Section], Run]] = {
    "lesion": (Lesion, _lesion),
    "landscape": (Landscape, _landscape),
    "robustness": (Robustness, _robustness),
    "depth": (Depth, _depth),
}


def main() -> None:
    """Run the command that the first argument names on the options that follow it."""
    name = sys.argv[1] if sys.argv[1:] else "--help"
    if name in ("--help", "-h"):
        print(USAGE)
        return
    if name not in COMMANDS:
        names = list(COMMANDS)
        message = f"segpipe.probe: {name} is none of {', '.join(names)}.{nearest(name, names)}"
        print(message, file=sys.stderr)
        sys.exit(WRONG_USAGE)
    del sys.argv[1]
    schema, run = COMMANDS[name]
    launch(name, schema, run, f"python -m segpipe.probe {name}")


if __name__ == "__main__":
    main()
