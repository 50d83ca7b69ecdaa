"""`report.html` of a run, and the same as `report.json`: made of what lies in its folder, whole or interrupted."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from segpipe.files import write_text
from segpipe.metrics import summarise
from segpipe.planning.fingerprint import CaseFacts, Facts, Intensities
from segpipe.reporting import run_tables as tables
from segpipe.reporting.fingerprint import draw_fingerprint
from segpipe.reporting.page import Link, Page, Picture, Table, embed, write_page
from segpipe.reporting.plots import draw_boxes, draw_curves
from segpipe.reporting.run_record import Record, plain
from segpipe.reporting.viewer import Viewer, ViewerBudget, make_viewer
from segpipe.stored import SCHEMA
from segpipe.terminal import relative_to_cwd
from segpipe.text import first_line
from segpipe.training.callbacks.history import CASES
from segpipe.training.callbacks.phases import PhaseTimer

log = logging.getLogger("segpipe")
FILE, MACHINES, FACTS = "report.html", "report.json", "fingerprint.json"
WIDTH = 1100  # pixels of a picture inside the page
BESIDE = ("validation.csv", CASES, "metrics.csv", "split.json", FACTS, "plan.yaml", "config.yaml",
          "network.json", "stages.json", "doctor.csv", "environment.json", "train.log")  # fmt: skip


@dataclass(frozen=True)
class Report(Page):
    """What `report.html` shows; what the run has not come to is None or empty.

    Attributes:
        stopped: why the run is not done; empty where it is.
        facts: the run in a few numbers, name and text.
        summary: per label, the means over cases.
        scored: by what.
        boxes: the cases of each label.
        curves: loss and Dice over the steps.
        cases: a picture of each case, the worst first.
        scores: a row per case and label, the worst first.
        viewer: of volumes, where it is asked for.
        fingerprint: the cases as plots.
        split: names of the cases, by part.
        findings: of the doctor.
        plan: entry and reason.
        network: its drawing.
        stages: time and memory.
        command: what was typed.
        alone: what would be typed for this run of a sweep alone; empty where it is no run of a sweep.
        environment: name and text.
        files: beside the page.
    """

    stopped: str
    facts: Sequence[tuple[str, str]]
    summary: Table | None
    scored: str
    boxes: Picture | None
    curves: Picture | None
    cases: Table | None
    scores: Table | None
    viewer: Viewer | None
    fingerprint: Picture | None
    split: Mapping[str, Sequence[str]]
    findings: Table | None
    plan: Table
    network: Picture | None
    stages: Table
    command: str
    alone: str
    environment: Sequence[tuple[str, str]]
    files: Sequence[Link]


def write_interrupted(folder: Path, phases: PhaseTimer, error: BaseException) -> None:
    """Write the page of a run that `error` ended, and say how to go on; never raise.

    Args:
        folder: the run's folder, in which the run is recorded already.
        phases: of the run.
        error: what ended it: an error, Ctrl-C or a signal.
    """
    try:
        phases.save()
        write_report(folder, stopped=_why(error))
    except Exception as problem:  # which must not hide what ended the run
        log.warning("%s could not be written: %s", FILE, problem)
    else:
        log.warning("%s; what there is so far: %s", _why(error), relative_to_cwd(folder / FILE))
    if (folder / "checkpoints" / "last.ckpt").is_file():
        log.warning("go on with: python train.py resume=%s", relative_to_cwd(folder))


def _why(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    return f"stopped by {type(error).__name__}: {first_line(error)}"


def write_facts(folder: Path, facts: Facts) -> None:
    """Writes the cases' fingerprint, `fingerprint.json`, of which the page is drawn."""
    write_text(folder / FACTS, json.dumps(asdict(facts), indent=1) + "\n")


def write_report(folder: Path, stopped: str = "", viewer: ViewerBudget | None = None) -> None:
    """Writes `report.html` and `report.json` of the run in this folder, with what there is.

    Args:
        folder: the run's folder, with at least config, plan, split and environment.
        stopped: why the run is not done; empty where it is.
        viewer: volumes for the viewer, where it is asked for.

    Raises:
        DataError: if they cannot be written.
    """
    run = Record(folder)
    write_text(
        folder / MACHINES,
        json.dumps(plain(_for_machines(run, stopped)), indent=1, allow_nan=False) + "\n",
    )
    pictures = tables.case_pictures(run)
    page = Report(
        title=f"Run {run.config['name']}, {folder.resolve().name}",
        lead=tables.lead(run),
        stopped=stopped,
        facts=tables.facts(run),
        summary=tables.summary(run),
        scored=tables.scored(run),
        boxes=_boxes(run),
        curves=_curves(run),
        cases=tables.cases(run, pictures),
        scores=tables.scores(run),
        viewer=None if viewer is None else make_viewer(viewer, run.labels),
        fingerprint=_fingerprint(run),
        split=run.split,
        findings=tables.findings(run),
        plan=tables.plan(run),
        network=_network(run),
        stages=tables.stages(run),
        command=tables.command(run),
        alone=tables.alone(run),
        environment=tables.environment(run),
        files=[Link(name, name) for name in (MACHINES, *BESIDE) if (folder / name).is_file()],
    )
    write_page(folder / FILE, "run.html", page)


def _for_machines(run: Record, stopped: str) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "stopped": stopped or None,
        "summary": [asdict(line) for line in summarise(run.scores)] if run.scores else [],
        "scores": [asdict(one) for one in run.scores],
        "last_validation": [asdict(one) for one in run.last],
        "metrics": run.metrics,
        "stages": [asdict(stage) for stage in run.stages],
        "split": run.split,
        "plan": run.plan,
        "fingerprint": run.json(FACTS),
        "findings": run.rows("doctor.csv"),
        "network": run.json("network.json"),
        "config": run.config,
        "environment": run.environment,
    }


def _network(run: Record) -> Picture | None:
    file = run.folder / "network.png"
    return embed(file, "the network, its stages and skips", WIDTH) if file.is_file() else None


def _fingerprint(run: Record) -> Picture | None:
    known, file = run.json(FACTS), run.folder / "fingerprint.png"
    if known is None:
        return None
    cases, channels = (
        [CaseFacts(**one) for one in known["cases"]],
        [Intensities(**one) for one in known["intensities"]],
    )
    draw_fingerprint(Facts(cases, channels), file)
    return embed(file, "size, spacing, labels and intensities of the cases", WIDTH)


def _curves(run: Record) -> Picture | None:
    file = run.folder / "curves.png"
    if not run.metrics:
        return None
    draw_curves(run.folder / "metrics.csv", file)
    return embed(file, "loss, learning rate and Dice per label over the steps", WIDTH)


def _boxes(run: Record) -> Picture | None:
    """Of Dice and HD95 where the run was scored; of Dice alone where it was only validated."""
    found = run.scores or run.last
    if not found:
        return None
    labels = dict.fromkeys(one.label for one in found)
    values = {
        "Dice": {label: [one.dice for one in found if one.label == label] for label in labels}
    }
    if run.scores:
        values["HD95, mm"] = {
            label: [one.hd95_mm for one in run.scores if one.label == label] for label in labels
        }
    draw_boxes(values, run.folder / "boxes.png")
    caption = "A point is a case; boxes hold the middle half of them, the line is the median."
    return embed(run.folder / "boxes.png", "a box plot of the cases for each label", WIDTH, caption)
