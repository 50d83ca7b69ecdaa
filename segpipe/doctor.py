"""`python train.py mode=doctor`: look through a dataset, say what is wrong, repair what is safe."""

import logging
from collections import Counter
from pathlib import Path

from segpipe.config.train import Train
from segpipe.data.datasets import open_dataset, select_cases, split_dataset
from segpipe.data.doctor import inspect_dataset
from segpipe.data.repair import write_repaired
from segpipe.data.split import write_split
from segpipe.planning.fingerprint import label_ids
from segpipe.terminal import relative_to_cwd, show_next, show_table

log = logging.getLogger("segpipe")
SOME_WRONG = 3


def diagnose(options: Train, folder: Path) -> int:
    """Look through a dataset, its test part too, and write a repaired copy where that is asked for.

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
    findings = [finding for inspected in cases for finding in inspected.findings]
    errors = sum(finding.severity == "error" for finding in findings)
    found = "nothing wrong found"
    if findings:
        found = f"{errors} errors, {len(findings) - errors} warnings"
    log.info("%s: %d cases read; %s", dataset.name, len(cases), found)
    if findings:
        kinds = Counter((finding.severity, finding.kind) for finding in findings)
        rows = [[kind, severity, str(count)] for (severity, kind), count in sorted(kinds.items())]
        show_table("findings", ["kind", "severity", "cases"], rows)
    show_next(
        [
            ("every finding", relative_to_cwd(folder / "doctor.csv")),
            ("log", relative_to_cwd(folder / "train.log")),
        ]
    )
    if options.fix is not None:
        labels = label_ids(cases, dataset.labels)
        left_out = write_repaired(cases, labels, options.fix)
        names = ",".join(f"{name}:{number}" for name, number in labels.items())
        log.info("left out of the copy: %s", ", ".join(left_out) or "none")
        log.info(
            "train on it: python train.py data=folder data.root=%s 'data.labels={%s}'",
            options.fix,
            names,
        )
    return SOME_WRONG if errors else 0
