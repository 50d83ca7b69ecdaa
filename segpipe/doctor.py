"""`python train.py mode=doctor`: inspect a dataset, report its errors, repair what is safe."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segpipe.config.train import Train
from segpipe.data.cases import Dataset
from segpipe.data.datasets import open_dataset, select_cases, split_dataset
from segpipe.data.doctor import inspect_dataset
from segpipe.data.inspected_case import Finding, InspectedCase
from segpipe.data.repair import write_repaired
from segpipe.data.split import write_split
from segpipe.planning.fingerprint import label_ids
from segpipe.terminal import relative_to_cwd, show_next, show_table

log = logging.getLogger("segpipe")
HAS_ERRORS = 3  # exit status


def diagnose(options: Train, folder: Path) -> int:
    """Inspect a dataset, its test part too, and write a repaired copy where that is requested.

    Args:
        options: the run's options.
        folder: the run's folder, in which `doctor.csv` is left.

    Returns:
        The exit status: 0 where no case has an error, else 3.

    Raises:
        SegpipeError: if the dataset cannot be found, or the copy not be written.
    """
    dataset = open_dataset(options.data)
    split = split_dataset(dataset, options.data)
    write_split(split, folder / "split.json")
    train, val = select_cases(dataset, split)
    cases = inspect_dataset(dataset, train, [*val, *dataset.test], options.data, folder)
    findings: list[Finding] = []
    for case in cases:
        findings += case.findings
    errors = [finding for finding in findings if finding.severity == "error"]
    _show(dataset, len(cases), findings, len(errors))
    show_next(
        [
            ("every finding", relative_to_cwd(folder / "doctor.csv")),
            ("log", relative_to_cwd(folder / "train.log")),
        ]
    )
    if options.fix is not None:
        _repair(cases, dataset, options.fix)
    return HAS_ERRORS if errors else 0


def _show(dataset: Dataset, cases: int, findings: Sequence[Finding], errors: int) -> None:
    """Log how many findings there are, and print a table of their kinds."""
    if not findings:
        log.info("%s: %d cases read; nothing wrong found", dataset.name, cases)
        return
    warnings = len(findings) - errors
    log.info("%s: %d cases read; %d errors, %d warnings", dataset.name, cases, errors, warnings)
    kinds = Counter((finding.severity, finding.kind) for finding in findings)
    rows = []
    for (severity, kind), number in sorted(kinds.items()):
        rows.append([kind, severity, str(number)])
    show_table("findings", ["kind", "severity", "cases"], rows)


def _repair(cases: Sequence[InspectedCase], dataset: Dataset, copy: Path) -> None:
    """Write a repaired copy of the dataset, and log the command that trains on it."""
    labels = label_ids(cases, dataset.labels)
    left_out = write_repaired(cases, labels, copy)
    names = ",".join(f"{name}:{number}" for name, number in labels.items())
    log.info("left out of the copy: %s", ", ".join(left_out) or "none")
    log.info(
        "train on it: python train.py data=folder data.root=%s 'data.labels={%s}'", copy, names
    )
