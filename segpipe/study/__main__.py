"""`python -m segpipe.study SWEEP`: compare the variants of a sweep, or runs."""

import itertools
import sys
from pathlib import Path
from typing import Any

from segpipe.cli import launch
from segpipe.config.compare import Compare
from segpipe.config.probe import Report
from segpipe.config.quoting import literal
from segpipe.config.validation import validate
from segpipe.probe import __main__ as probe

USAGE = """\
Compares the variants of a sweep: study.html, study.md and study.csv in its folder; or any systems
on the cases that all of them have: compare.html, compare.md and compare.csv.

  python -m segpipe.study SWEEP
  python -m segpipe.study RUN RUN [RUN ...] [output=DIR]
  python -m segpipe.study report --help    its keys
  python -m segpipe.study compare A B [C ...] [margin=0.01] [output=DIR]
  python -m segpipe.study compare --help   its keys

Measurements of single networks are commands of python -m segpipe.probe now: lesion, landscape,
robustness, depth."""
NO_COMPARISON = 1
WRONG_USAGE = 2


def _report(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Report, values)
    from segpipe.reporting.formats import figures_as
    from segpipe.study.report import write_study  # SciPy and matplotlib take long to import
    from segpipe.study.runs import read_runs
    from segpipe.study.sweep import read_sweep
    from segpipe.terminal import logged_to

    with logged_to(options.folder / "study.log"), figures_as(options.page.figures):
        sweep = read_sweep(options.sweep) if options.sweep else read_runs(options.runs or [])
        return 0 if write_study(sweep, options.folder, options) else NO_COMPARISON


def _compare(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Compare, values)
    from segpipe.reporting.formats import figures_as
    from segpipe.study.comparison import compare_systems
    from segpipe.terminal import logged_to

    with logged_to(options.folder / "compare.log"), figures_as(options.page.figures):
        compare_systems(options)
    return 0


def _named_systems(words: list[str]) -> list[str]:
    """Return the words of `compare`, with those that name files or folders as an override."""
    systems = list(itertools.takewhile(_is_path, words))
    if not systems:
        return words
    return [f"systems=[{','.join(map(literal, systems))}]", *words[len(systems) :]]


def _is_path(word: str) -> bool:
    is_option = word.startswith("-") or "=" in word
    return Path(word).exists() or not is_option


def _named_folders(words: list[str]) -> list[str]:
    """Return the words for folders that stand first on the command line as overrides."""
    folders = list(itertools.takewhile(lambda word: Path(word).is_dir(), words))
    if not folders:
        return words
    others = words[len(folders) :]
    if len(folders) == 1 and not (Path(folders[0]) / "config.yaml").is_file():
        return [f"sweep={literal(folders[0])}", *others]
    return [f"runs=[{','.join(map(literal, folders))}]", *others]


def main() -> None:
    """Write the study of the sweep, or of the runs, that the first arguments name.

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
    if name == "compare":
        sys.argv[1:] = _named_systems(sys.argv[2:])
        launch("compare", Compare, _compare, "python -m segpipe.study compare")
        return
    if Path(name).is_dir():
        sys.argv[1:] = _named_folders(sys.argv[1:])
    elif name == "report":
        del sys.argv[1]
    else:
        print(f"segpipe.study: {name} is not the folder of a sweep or a run", file=sys.stderr)
        sys.exit(WRONG_USAGE)
    launch("report", Report, _report, "python -m segpipe.study report")


if __name__ == "__main__":
    main()
