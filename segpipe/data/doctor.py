"""What is wrong with a dataset, case by case: read before every training and by `mode=doctor`.

An error makes a case unusable; a warning is something that a person should look at, but that does
not stop a training.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes

from segpipe.config.data import Data, NaNPolicy
from segpipe.data import cache
from segpipe.data.cases import Case, Dataset, name_of
from segpipe.data.inspected_case import Finding, InspectedCase
from segpipe.data.inspection import inspect_case
from segpipe.data.split_check import check_split
from segpipe.errors import DataError
from segpipe.files import write_table
from segpipe.io.dicom_stacks import ROUNDED_MM, TOLERANCE
from segpipe.io.notes import mark_said
from segpipe.terminal import progress_bar
from segpipe.text import clipped, count, visible

log = logging.getLogger("segpipe")
IN_ONE_LINE = {"rounded"}  # kinds of findings that the cases of a dataset have for one reason
SAMPLES = 10_000_000  # labelled voxels of all cases that are kept, by which memory is bounded
MOST_MIRRORED = 0.1  # a larger share of cases with the other handedness is another scanner's


def inspect_cases(
    train: Sequence[Case],
    val: Sequence[Case],
    labels: dict[str, int] | None,
    channels: int | None,
    done: Callable[[], None],
    ignore: int | None = None,
    cache_folder: Path | None = None,
    nan: NaNPolicy = "refuse",
) -> list[InspectedCase]:
    """Read and check every case once, in parallel.

    Args:
        train: cases that train.
        val: cases that validate.
        labels: the declared label ids; None where the dataset declares none.
        channels: the declared number of image channels; None: what most cases have.
        done: a function that is called after each case.
        ignore: id on disk of voxels that nobody has annotated.
        cache_folder: a case that an earlier run has inspected and cached here, unchanged, is not
            read again.
    """

    most = SAMPLES // max(1, len(train) + len(val))

    def inspect(case: Case) -> InspectedCase:
        if cache_folder is None:
            inspected = inspect_case(case, labels, ignore, nan)
        else:
            inspected = _inspect_once(case, labels, ignore, nan, cache_folder)
        inspected.foreground = _thinned(inspected.foreground, most)
        done()
        return inspected

    with ThreadPoolExecutor() as threads:
        cases = list(threads.map(inspect, [*train, *val]))
    _check_channels(cases, channels)
    _check_copies(cases, set(map(name_of, val)))
    _check_handedness(cases)
    return cases


def _thinned(voxels: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many of the voxels `(channels, voxels)`, taken evenly."""
    step = -(-voxels.shape[1] // max(1, most))
    return voxels[:, ::step].copy() if step > 1 else voxels  # a view would hold all of them


def _inspect_once(
    case: Case,
    labels: dict[str, int] | None,
    ignore: int | None,
    nan: NaNPolicy,
    cache_folder: Path,
) -> InspectedCase:
    settings: list[object] = [list(map(str, case.files)), labels, ignore, nan]
    if TOLERANCE.mm != ROUNDED_MM:
        settings.append(TOLERANCE.mm)
    try:
        entry = cache.entry_path(cache_folder, case.files, "inspected", *settings)
    except DataError:
        return inspect_case(case, labels, ignore, nan)  # finds out which file cannot be read
    arrays = cache.read_entry(entry) if cache.is_whole(entry) else None
    if arrays is not None:
        inspected = InspectedCase.unpack(case, arrays)
        for finding in inspected.findings:
            mark_said(finding.problem)  # as if the files had been read now
        return inspected
    inspected = inspect_case(case, labels, ignore, nan)
    cache.write_entry(entry, inspected.pack())
    return inspected


def _check_channels(cases: Sequence[InspectedCase], declared: int | None) -> None:
    """Check that each case has the declared number of channels, or that of most cases."""
    readable = [inspected for inspected in cases if inspected.grid is not None]
    if not readable:
        return
    counts = Counter(len(inspected.foreground) for inspected in readable)
    expected = declared or counts.most_common(1)[0][0]
    reason = "the dataset declares" if declared else "most cases have"
    for inspected in readable:
        channels = len(inspected.foreground)
        if channels != expected:
            inspected.add(
                "channels",
                f"{inspected.case.images[0]}: has {channels} channels, but {reason} {expected}",
                "a time series or a colour picture? keep the channels that all cases have",
            )


def _check_handedness(cases: Sequence[InspectedCase]) -> None:
    """Check that few cases do not differ in the handedness of their axes from all others.

    Left-handed axes are common and valid, but a few among others suggest a converter that lost a
    sign.
    """
    sides: dict[str, list[tuple[InspectedCase, np.ndarray]]] = {"left": [], "right": []}
    for inspected in cases:
        if inspected.grid is not None:
            affine = inspected.grid.affine
            side = "left" if np.linalg.det(affine[:3, :3]) < 0 else "right"
            sides[side].append((inspected, affine))
    rarer, usual = sorted(sides, key=lambda side: len(sides[side]))
    few = len(sides[rarer])
    total = few + len(sides[usual])
    if few > MOST_MIRRORED * total:
        return
    for inspected, affine in sides[rarer]:
        axes = "".join(aff2axcodes(affine))
        inspected.add(
            "mirrored",
            f"{inspected.case.images[0]}: its axes are {rarer}-handed ({axes}), but those of "
            f"{total - few} of {total} cases are {usual}-handed",
            "check that left and right are the patient's own; if not, correct the affine's sign",
        )


def _check_copies(cases: Sequence[InspectedCase], val: set[str]) -> None:
    """Check that no image occurs twice; across training and validation that is an error."""
    originals: dict[str, InspectedCase] = {}
    for inspected in cases:
        if not inspected.content:
            continue
        original = originals.setdefault(inspected.content, inspected)
        if original is inspected:
            continue
        leaks = (inspected.case.name in val) != (original.case.name in val)
        problem = f"{inspected.case.images[0]}: is the same image as {original.case.images[0].name}"
        if leaks:
            problem += ", and one trains while the other validates"
        inspected.add("leak" if leaks else "copy", problem, "leave out one of them")


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write a CSV file with a line per finding."""
    header = ["case", "severity", "kind", "problem", "remedy"]
    rows = []
    for finding in findings:
        rows.append([finding.case, finding.severity, finding.kind, finding.problem, finding.remedy])
    write_table(path, header, rows)


def inspect_dataset(
    dataset: Dataset,
    train: Sequence[Case],
    val: Sequence[Case],
    data: Data,
    folder: Path,
    test: Sequence[Case] = (),
) -> tuple[list[InspectedCase], list[Finding]]:
    """Read and check every case once, and the split; write all findings to `doctor.csv`.

    Args:
        dataset: the dataset of the cases.
        train: cases that train.
        val: cases that validate.
        data: the options of the dataset.
        folder: the run's folder.
        test: other cases.

    Returns:
        The cases in the order of the arguments, and the findings, which are logged too.
    """
    channels = len(dataset.channels) if dataset.declares_channels else None
    others = [*val, *test]
    with progress_bar() as bar:
        reading = bar.add_task("reading cases", total=len(train) + len(others), note="")
        cases = inspect_cases(
            train,
            others,
            dataset.labels,
            channels,
            lambda: bar.advance(reading),
            data.ignore_label,
            data.cache,
            data.nan,
        )
    findings: list[Finding] = []
    for inspected in cases:
        findings += inspected.findings
    split = len(train)
    findings += check_split(cases[:split], cases[split : split + len(val)], dataset.labels)
    write_findings(findings, folder / "doctor.csv")
    _log_findings(findings)
    return cases, findings


def _log_findings(findings: Sequence[Finding]) -> None:
    """Log a line per finding; of a kind in `IN_ONE_LINE` the first, with the number of others."""
    kinds = Counter(finding.kind for finding in findings)
    said: set[str] = set()
    for finding in findings:
        if finding.kind in said:
            continue
        problem = finding.problem
        if finding.kind in IN_ONE_LINE:
            said.add(finding.kind)
            others = count(kinds[finding.kind] - 1, "other case")
            if kinds[finding.kind] > 1:
                problem += f"; likewise in {others} (doctor.csv)"
        remedy = finding.remedy[0].upper() + finding.remedy[1:]
        level = logging.ERROR if finding.severity == "error" else logging.WARNING
        log.log(level, "%s: %s. %s.", finding.severity, problem, remedy)


def refuse_errors(cases: Sequence[InspectedCase]) -> None:
    """Check that no case has an error, since none of them can train.

    Raises:
        DataError: with the number of unusable cases and the first of them.
    """
    unusable = [inspected.case.name for inspected in cases if not inspected.usable]
    if unusable:
        raise DataError(
            f"{len(unusable)} of {len(cases)} cases cannot be used, such as "
            f"{clipped(visible(unusable[0]))}: "
            "repair or leave them out (listed above)"
        )
