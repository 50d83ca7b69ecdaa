"""`python train.py mode=doctor`: inspect a dataset, report its errors, repair what is safe."""

import logging
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from segpipe.config.quoting import as_typed, invocation, literal
from segpipe.config.train import Train
from segpipe.data.cases import Dataset
from segpipe.data.datasets import open_for_training, select_cases, split_dataset
from segpipe.data.doctor import inspect_dataset
from segpipe.data.inspected_case import Finding, InspectedCase, usable_of
from segpipe.data.repair import can_be_repaired, write_repaired
from segpipe.data.split import write_split
from segpipe.outlook import examination, foresee
from segpipe.planning.fingerprint import label_ids
from segpipe.planning.metric_advice import advise
from segpipe.reporting.doctor_page import write_diagnosis
from segpipe.terminal import relative_to_cwd, show_next, show_table
from segpipe.text import clipped, count, visible

log = logging.getLogger("segpipe")
HAS_ERRORS = 3  # exit status
# what to add to fix=, so that cases are not left out for a kind of finding
FIX_REMEDIES = {"nan": "; add data.nan=fill to fill them with their channel's smallest value"}
OF_THE_DOCTOR = ("mode=", "fix=", "hydra.run.dir=")  # arguments that a training has no use for
NAMED = 5  # cases that a message names at most


def diagnose(options: Train, folder: Path, overrides: Sequence[str]) -> int:
    """Inspect a dataset, its test part too, and write a repaired copy where that is requested.

    Args:
        options: the run's options.
        folder: the run's folder, in which `doctor.html` and `doctor.csv` are left.
        overrides: arguments of the command line.

    Returns:
        The exit status: 0 where no case has an error, else 3.

    Raises:
        SegpipeError: if the dataset cannot be found, or the copy not be written.
    """
    options, dataset = open_for_training(options)
    split = split_dataset(dataset, options.data)
    write_split(split, folder / "split.json")
    train, val = select_cases(dataset, split)
    cases, findings = inspect_dataset(dataset, train, val, options.data, folder, dataset.test)
    errors = [finding for finding in findings if finding.severity == "error"]
    _show(dataset, len(cases), findings, len(errors))
    _show_metrics(cases, dataset)
    parts = {"train": cases[: len(train)], "val": cases[len(train) :][: len(val)]}
    parts["test"] = cases[len(train) + len(val) :]
    examined = examination(dataset, parts, findings, options.data)
    outlook = foresee(examined, options, folder, overrides)
    train = _training_command(overrides)
    write_diagnosis(folder, examined, outlook, options.page.cases, train)
    show_next(
        [
            ("page", relative_to_cwd(folder / "doctor.html")),
            ("every finding", relative_to_cwd(folder / "doctor.csv")),
            ("log", relative_to_cwd(folder / "train.log")),
        ]
    )
    status = HAS_ERRORS if errors else 0
    if options.fix is not None:
        return _repair(cases, dataset, options, options.fix) or status
    return status


def _training_command(overrides: Sequence[str]) -> str:
    """Return the command that trains with these arguments of the doctor."""
    words = [as_typed(word) for word in overrides if not word.startswith(OF_THE_DOCTOR)]
    return shlex.join([*invocation("train").split(), *words])


def _show(dataset: Dataset, cases: int, findings: Sequence[Finding], errors: int) -> None:
    """Log how many findings there are, and print a table of their kinds."""
    if not findings:
        log.info("%s: %s read; nothing wrong found", dataset.name, count(cases, "case"))
        return
    warnings = len(findings) - errors
    found = f"{count(errors, 'error')}, {count(warnings, 'warning')}"
    log.info("%s: %s read; %s", dataset.name, count(cases, "case"), found)
    kinds = Counter((finding.severity, finding.kind) for finding in findings)
    rows = []
    for (severity, kind), number in sorted(kinds.items()):
        rows.append([kind, severity, str(number)])
    show_table("findings", ["kind", "severity", "cases"], rows)


def _show_metrics(cases: Sequence[InspectedCase], dataset: Dataset) -> None:
    """Log which metrics suit each label, and how to ask for them."""
    usable = usable_of(cases)
    if not any(len(case.sizes) for case in usable):
        return
    more: dict[str, None] = {}
    for advice in advise(usable, label_ids(usable, dataset.labels)):
        log.info("metrics for %s", advice)
        more |= dict.fromkeys(advice.metrics)
    if more:
        log.info("to measure them: metrics=[usual,%s]", ",".join(more))


def _repair(cases: Sequence[InspectedCase], dataset: Dataset, options: Train, copy: Path) -> int:
    """Write a repaired copy of the dataset, log what it holds, and return the exit status.

    Returns:
        3 where no case can be used, so that nothing is written; else 0.
    """
    usable = [inspected for inspected in cases if can_be_repaired(inspected)]
    if not usable:
        findings = chain.from_iterable(inspected.findings for inspected in cases)
        kinds = Counter(finding.kind for finding in findings)
        found = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        log.error(
            "fix=%s: nothing can be mended, and nothing is written: all of %s need a person (%s)%s",
            copy,
            count(len(cases), "case"),
            found,
            "".join(FIX_REMEDIES.get(kind, "") for kind in kinds),
        )
        return HAS_ERRORS
    labels = label_ids(usable, dataset.labels, dataset.names)
    repair = write_repaired(cases, labels, copy, options.data.nan)
    mended = [f"{what} ({count(number, 'case')})" for what, number in repair.mended.items()]
    log.info("mended: %s", "; ".join(mended) or "nothing")
    for kind, names in repair.left.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        shown = ", ".join(clipped(visible(name)) for name in names[:NAMED])
        remedy = FIX_REMEDIES.get(kind, "")
        log.warning(
            "left out: %s for %s: %s%s%s", count(len(names), "case"), kind, shown, more, remedy
        )
    if len(repair.written) > 1:
        overrides = " ".join(_overrides(copy, labels, options))
        log.info("train on it: %s %s", invocation("train"), overrides)
    else:
        log.warning("%s: one case was written, too few to train and to validate", copy)
    return 0


def _overrides(copy: Path, labels: dict[str, int], options: Train) -> list[str]:
    """Return what to type in order to train on a repaired copy."""
    names = ",".join(f"{_as_key(name)}:{number}" for name, number in labels.items())
    words = ["data=folder", f"data.root={_quoted(str(copy))}", f"data.labels={{{names}}}"]
    data = options.data
    if data.ignore_label is not None:
        words.append(f"data.ignore_label={data.ignore_label}")
    if data.regions is not None:
        regions = []
        for name, ids in data.regions.items():
            regions.append(f"{_as_key(name)}:[{','.join(map(str, ids))}]")
        words.append(f"data.regions={{{','.join(regions)}}}")
    return [shlex.quote(word) for word in words]


def _as_key(name: str) -> str:
    """Return a name as Hydra reads the key of a map, which it takes in no quotes."""
    return re.sub(r"[\\()\[\]{}:=,]", r"\\\g<0>", name)


def _quoted(text: str) -> str:
    """Return a text as Hydra reads it, in quotes where it needs them."""
    return text if re.fullmatch(r"[\w./-]+", text) else literal(text)
