"""What can be compared: runs, sweeps, folders of predictions, evaluations and tables of scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segpipe.ensembles import FILE as ENSEMBLE
from segpipe.errors import ConfigError
from segpipe.evaluate.report import KIND, MACHINES
from segpipe.files import read_table
from segpipe.metrics import Score
from segpipe.plain import read_json
from segpipe.prediction.record_store import MANIFEST, read_manifest
from segpipe.prediction.records import units_of
from segpipe.reporting.run_record import RunRecord, as_written
from segpipe.study.sweep import Repeat, Source, SweepRun, Variant, read_sweep, why_unfinished
from segpipe.units import UNITS, Units

SCORES = ("scores.csv", "validation.csv")
WANTED = (
    "give a run, a sweep, a folder of predictions or of an evaluation, or a table of scores "
    "(scores.csv, validation.csv)"
)


System = Variant[Source]


def read_systems(paths: Sequence[Path], names: Sequence[str] | None) -> list[System]:
    """Return the systems that paths stand for: one each, of a sweep one for each setting.

    Args:
        paths: as the user has typed them.
        names: the names of all systems; None: as their folders are called.

    Raises:
        ConfigError: if a path holds no scores, is given twice, or the names are too few or many.
    """
    given: dict[Path, Path] = {}
    systems: list[System] = []
    for path, name in zip(paths, _short_names(paths), strict=True):
        first = given.setdefault(path.resolve(), path)
        if first is not path:
            raise ConfigError(f"compare: {path} is what {first} names already: give it once")
        systems += _read(path, name)
    if names is not None and len(names) != len(systems):
        raise ConfigError(f"names: {len(names)} names, but {len(systems)} systems are compared")
    named = names or [system.name for system in systems]
    if len(set(named)) < len(named):
        raise ConfigError(
            f"names: two systems have one name ({', '.join(named)}): give names=[A,B]"
        )
    return [Variant(name, (), system.runs) for name, system in zip(named, systems, strict=True)]


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return for each path as many of its last parts as tell it from the others."""
    full: list[tuple[str, ...]] = []
    for path in paths:
        absolute = path.absolute()
        is_usual = absolute.name in SCORES  # its folder says more
        full.append((absolute.parent if is_usual else absolute).parts)
    for length in range(1, max(map(len, full)) + 1):
        names = ["/".join(parts[-length:]) for parts in full]
        if len(set(names)) == len(names):
            return names
    return list(map(str, paths))


def _read(path: Path, name: str) -> list[System]:
    """Return the systems of one path.

    Raises:
        ConfigError: if it holds no scores.
    """
    if path.is_file():
        return [_alone(name, Source(path.parent, _read_scores(path)))]
    if not path.is_dir():
        raise ConfigError(f"compare: {path}: no such file or folder; {WANTED}")
    if (path / "multirun.yaml").is_file():
        return _of_sweep(path, name)
    if (path / ENSEMBLE).is_file():  # each case is scored by a network that has not seen it
        source = Source(path, _read_scores(_table(path)), _units_of_folds(path), frozenset())
    elif (path / "config.yaml").is_file():
        source = _of_run(SweepRun(path, (), ()))
    else:
        source = Source(path, _read_scores(_table(path)), _units(path))
    return [_alone(name, source)]


def _alone(name: str, source: Source) -> System:
    return Variant(name, (), {(): source})


def _of_sweep(path: Path, name: str) -> list[System]:
    """Return a system for each setting of a sweep that has a run which is done.

    Raises:
        ConfigError: if there is none.
    """
    sweep = read_sweep(path)
    if not sweep.variants:
        raise ConfigError(f"compare: {path}: no run of this sweep is done")
    systems: list[System] = []
    for variant in sweep.variants:
        runs: dict[Repeat, Source] = {}
        for repeat, run in variant.runs.items():
            runs[repeat] = _of_run(run)
        systems.append(Variant(f"{name} {variant.name}", (), runs))
    return systems


def _of_run(run: SweepRun) -> Source:
    """Return the scores of a run.

    Raises:
        ConfigError: if it is not done.
    """
    problem = why_unfinished(run.folder)
    if problem:
        raise ConfigError(f"compare: {run.folder}: {problem}")
    return Source(run.folder, run.scores, run.units, frozenset(run.split["train"]), run)


def _units_of_folds(folder: Path) -> Units:
    for fold in sorted(folder.glob("*/plan.yaml")):
        return RunRecord(fold.parent).units
    return UNITS["mm"]


def _units(folder: Path) -> Units:
    """Return the units of a folder of predictions, or of an evaluation; else mm."""
    if (folder / MANIFEST).is_file():
        return units_of(read_manifest(folder / MANIFEST).values())
    if (folder / MACHINES).is_file():
        content = read_json(folder / MACHINES)
        if isinstance(content, Mapping) and content.get("kind") == KIND:
            return UNITS.get(str(content.get("unit")), UNITS["mm"])
    return UNITS["mm"]


def _table(folder: Path) -> Path:
    """Return the table of scores in a folder.

    Raises:
        ConfigError: if there is none.
    """
    for name in SCORES:
        if (folder / name).is_file():
            return folder / name
    hint = ""
    if (folder / MANIFEST).is_file():
        hint = "; predict.py truth=LABELS, or python -m segpipe.evaluate, scores its masks"
    raise ConfigError(f"compare: {folder}: holds no {' or '.join(SCORES)}{hint}; {WANTED}")


def _read_scores(file: Path) -> list[Score]:
    """Return the scores of a table.

    Raises:
        DataError: if it is none.
        ConfigError: if it holds no score.
    """
    with as_written(file):
        scores = list(map(Score.from_values, read_table(file)))
    if not any(score.dice == score.dice for score in scores):
        raise ConfigError(f"compare: {file}: holds no score; its columns must be case, label, dice")
    return scores
