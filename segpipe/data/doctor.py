"""What is wrong with a dataset, case by case: read once, before every training and by `mode=doctor`.

An error makes a case unusable; a warning is something that a person should look at, but that does not stop a training.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes

from segpipe.config.data import Data
from segpipe.data import cache
from segpipe.data.cases import Case, Dataset
from segpipe.data.inspection import Finding, InspectedCase, inspect_case
from segpipe.errors import DataError
from segpipe.files import write_table
from segpipe.terminal import progress_bar

log = logging.getLogger("segpipe")
MOST_MIRRORED = (
    0.1  # a larger share of cases than this, stored in the other handedness, is another scanner
)


def inspect_cases(
    train: Sequence[Case],
    val: Sequence[Case],
    labels: dict[str, int] | None,
    channels: int | None,
    done: Callable[[], None],
    ignore: int | None = None,
    kept_in: Path | None = None,
) -> list[InspectedCase]:
    """Reads every case once, in parallel.

    Args:
        train: cases that train.
        val: cases that validate.
        labels: the declared label ids; None where the dataset declares none.
        channels: the declared number of image channels; None: what most cases have.
        done: called after each case.
        ignore: id on disk of voxels that nobody has annotated.
        kept_in: the cache; a case that lies there since an earlier run, unchanged, is not read again.
    """

    def one(case: Case) -> InspectedCase:
        seen = (
            inspect_case(case, labels, ignore)
            if kept_in is None
            else _examine_once(case, labels, ignore, kept_in)
        )
        done()
        return seen

    with ThreadPoolExecutor() as threads:
        cases = list(threads.map(one, [*train, *val]))
    _check_channels(cases, channels)
    _check_copies(cases, {case.name for case in val})
    _check_hands(cases)
    return cases


def _examine_once(
    case: Case, labels: dict[str, int] | None, ignore: int | None, folder: Path
) -> InspectedCase:
    files = [*case.images, *([case.label] if case.label else [])]
    try:
        place = cache.entry(
            folder, files, "examined 2", [str(file) for file in files], labels, ignore
        )
    except DataError:
        return inspect_case(case, labels, ignore)  # which notes what cannot be read
    arrays = cache.kept(place)
    if arrays is None:
        seen = inspect_case(case, labels, ignore)
        cache.keep(place, seen.pack())
        return seen
    return InspectedCase.unpack(case, arrays)


def _check_channels(cases: Sequence[InspectedCase], declared: int | None) -> None:
    counts = Counter(len(seen.foreground) for seen in cases if seen.grid is not None)
    if not counts:
        return
    usual = declared or counts.most_common(1)[0][0]
    whose = "the dataset declares" if declared else "most cases have"
    for seen in cases:
        found = len(seen.foreground)
        if seen.grid is not None and found != usual:
            problem = f"{seen.case.images[0]}: has {found} channels, but {whose} {usual}"
            seen.add(
                "channels",
                problem,
                "a time series or a colour picture? keep the channels that all cases have",
            )


def _check_hands(cases: Sequence[InspectedCase]) -> None:
    """Left-handed axes are common and well, but a few among others are what a converter leaves that lost a sign."""
    hands = [
        (seen, np.linalg.det(seen.grid.affine[:3, :3]) < 0)
        for seen in cases
        if seen.grid is not None
    ]
    left = [seen for seen, is_left in hands if is_left]
    few = min(left, [seen for seen, is_left in hands if not is_left], key=len)
    if not 0 < len(few) <= MOST_MIRRORED * len(hands):
        return
    its, others = ("left", "right") if few is left else ("right", "left")
    for seen in few:
        assert seen.grid is not None
        axes = "".join(aff2axcodes(seen.grid.affine))
        seen.add(
            "mirrored",
            f"{seen.case.images[0]}: its axes are {its}-handed ({axes}), but those of {len(hands) - len(few)} of "
            f"{len(hands)} cases are {others}-handed",
            "look whether left and right are the patient's own, and mend the affine's sign if not",
        )


def _check_copies(cases: Sequence[InspectedCase], val: set[str]) -> None:
    first: dict[str, InspectedCase] = {}
    for seen in cases:
        other = first.setdefault(seen.content, seen) if seen.content else seen
        if other is seen:
            continue
        across = (seen.case.name in val) != (other.case.name in val)
        seen.add(
            "leak" if across else "copy",
            f"{seen.case.images[0]}: is the same image as {other.case.images[0].name}"
            + (", and one trains while the other validates" if across else ""),
            "leave out one of them",
        )


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write a CSV file with a line per finding."""
    header = ["case", "severity", "kind", "problem", "mend"]
    rows = [[one.case, one.severity, one.kind, one.problem, one.mend] for one in findings]
    write_table(path, header, rows)


def inspect_dataset(
    dataset: Dataset, train: list[Case], val: list[Case], data: Data, folder: Path
) -> list[InspectedCase]:
    """Every case read once; what is wrong goes into `doctor.csv` and, line by line, to the terminal."""
    declared = len(dataset.channels) if dataset.declares_channels else None
    with progress_bar() as bar:
        reading = bar.add_task("reading cases", total=len(train) + len(val), note="")
        cases = inspect_cases(
            train,
            val,
            dataset.labels,
            declared,
            lambda: bar.advance(reading),
            data.ignore_label,
            data.cache,
        )
    findings = [finding for seen in cases for finding in seen.findings]
    write_findings(findings, folder / "doctor.csv")
    for finding in findings:
        line = (
            f"{finding.severity}: {finding.problem}. {finding.mend[0].upper()}{finding.mend[1:]}."
        )
        log.log(logging.ERROR if finding.severity == "error" else logging.WARNING, line)
    return cases


def refuse_errors(cases: Sequence[InspectedCase]) -> None:
    """Lets only cases train that can be used.

    Raises:
        DataError: if there are others.
    """
    wrong = [seen.case.name for seen in cases if not seen.usable]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(cases)} cases cannot be used, as {wrong[0]}: mend or leave them out (listed above)"
        )
