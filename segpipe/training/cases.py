"""The cases of a run: found, split and examined; and `mode=doctor`, which stops there."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segpipe.config.train import Data, Train
from segpipe.data.cases import Case, Dataset
from segpipe.data.doctor import examine, write_findings
from segpipe.data.examine import Examined
from segpipe.data.fingerprint import label_ids
from segpipe.data.layouts import read_dataset
from segpipe.data.mend import write_mended
from segpipe.data.phantom import write_phantom
from segpipe.data.split import split_cases, write_split
from segpipe.errors import DataError
from segpipe.terminal import progress_bar

log = logging.getLogger("segpipe")
SOME_WRONG = 3


def open_dataset(data: Data) -> Dataset:
    """The dataset that the options name; the phantom is written first where it is not there.

    Raises:
        SegpipeError: if it is not there or not in order.
    """
    assert data.root is not None
    if data.layout == "phantom":
        drawn = data.phantom
        write_phantom(data.root, **drawn.model_dump())
        return read_dataset("decathlon", data.root)
    dataset = read_dataset(
        data.layout, data.root, images=data.image_folder, labels=data.label_folder, declared=data.labels
    )
    if dataset.labels is None or data.ignore_label is None:
        return dataset
    return replace(
        dataset, labels={name: number for name, number in dataset.labels.items() if number != data.ignore_label}
    )


def split_dataset(dataset: Dataset, options: Train, folder: Path) -> tuple[list[Case], list[Case]]:
    """The cases that train and those that validate; `split.json` in the run's folder names them.

    Raises:
        ConfigError: if the split cannot be made.
    """
    data = options.data
    split = split_cases(
        dataset.cases,
        file=data.split,
        folds=data.folds,
        fold=data.fold,
        fraction=data.fraction,
    )
    write_split(split, folder / "split.json")
    named = {case.name: case for case in dataset.cases}
    return [named[name] for name in split.train], [named[name] for name in split.val]


def examine_dataset(dataset: Dataset, train: list[Case], val: list[Case], data: Data, folder: Path) -> list[Examined]:
    """Every case read once; what is wrong goes into `doctor.csv` and, line by line, to the terminal."""
    declared = len(dataset.channels) if data.layout in ("decathlon", "nnunet") else None
    with progress_bar() as bar:
        reading = bar.add_task("reading cases", total=len(train) + len(val), note="")
        cases = examine(
            train, val, dataset.labels, declared, lambda: bar.advance(reading), data.ignore_label, data.cache
        )
    findings = [finding for seen in cases for finding in seen.findings]
    write_findings(findings, folder / "doctor.csv")
    for finding in findings:
        line = f"{finding.severity}: {finding.problem}. {finding.mend[0].upper()}{finding.mend[1:]}."
        log.log(logging.ERROR if finding.severity == "error" else logging.WARNING, line)
    return cases


def refuse_errors(cases: Sequence[Examined]) -> None:
    """Lets only cases train that can be used.

    Raises:
        DataError: if there are others.
    """
    wrong = [seen.case.name for seen in cases if not seen.usable]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(cases)} cases cannot be used, as {wrong[0]}: mend or leave them out (listed above)"
        )


def diagnose(options: Train, folder: Path) -> int:
    """Looks through a dataset, its test part too, and writes a corrected copy where that is asked for.

    Args:
        options: the run's options.
        folder: the run's folder, in which `doctor.csv` is left.

    Returns:
        The exit status: 0 where no case has an error, else 3.

    Raises:
        SegpipeError: if the dataset cannot be found, or the copy not be written.
    """
    dataset = open_dataset(options.data)
    train, val = split_dataset(dataset, options, folder)
    cases = examine_dataset(dataset, train, [*val, *dataset.test], options.data, folder)
    findings = [finding for seen in cases for finding in seen.findings]
    errors = sum(finding.severity == "error" for finding in findings)
    found = f"{errors} errors, {len(findings) - errors} warnings" if findings else "nothing wrong found"
    log.info("%s: %d cases read; %s (%s)", dataset.name, len(cases), found, folder / "doctor.csv")
    if options.fix is not None:
        labels = label_ids(cases, dataset.labels)
        left_out = write_mended(cases, labels, options.fix)
        names = ",".join(f"{name}:{number}" for name, number in labels.items())
        log.info("left out of the copy: %s", ", ".join(left_out) or "none")
        log.info("train on it: python train.py data=folder data.root=%s 'data.labels={%s}'", options.fix, names)
    return SOME_WRONG if errors else 0
