"""`python -m segpipe.study SWEEP`: compare the variants of a sweep."""

import sys
from pathlib import Path
from typing import Any

from segpipe.cli import launch
from segpipe.config.probe import Report
from segpipe.config.quoting import literal
from segpipe.config.validation import validate
from segpipe.probe import __main__ as probe

USAGE = """\
Compares the variants of a sweep: study.html, study.md and study.csv in its folder.

  python -m segpipe.study SWEEP
  python -m segpipe.study report --help    its keys

Measurements of single networks are commands of python -m segpipe.probe now: lesion, landscape,
robustness, depth."""
NO_COMPARISON = 1
WRONG_USAGE = 2


def _report(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Report, values)
    from segpipe.study.report import report  # SciPy and matplotlib take long to import
    from segpipe.terminal import logged_to

    assert options.sweep is not None
    with logged_to(options.sweep / "study.log"):
        return 0 if report(options.sweep, options) else NO_COMPARISON


def main() -> None:
    """Write the study of the sweep that the first argument names.

    The commands of `segpipe.probe` still run from here, after a line with their new name.
    """
    name = sys.argv[1] if sys.argv[1:] else "--help"
    if name in ("--help", "-h"):
        print(USAGE)
        return
    if name in probe.COMMANDS:
        new_name = f"python -m segpipe.probe {name}"
        print(f"segpipe.study: {name} has a new name: {new_name}", file=sys.stderr)
        probe.main()
        return
    if Path(name).is_dir():
        sys.argv[1:2] = ["report", f"sweep={literal(name)}"]
    elif name != "report":
        print(f"segpipe.study: {name} is not the folder of a sweep", file=sys.stderr)
        sys.exit(WRONG_USAGE)
    del sys.argv[1]
    launch("report", Report, _report, "python -m segpipe.study report")


if __name__ == "__main__":
    main()
