"""`report.html` of a run, and the same as `report.json`, made from the files in its folder."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from segpipe.config.quoting import invocation, typed
from segpipe.files import write_json, write_text
from segpipe.planning.fingerprint import Facts
from segpipe.reporting import run_charts as charts
from segpipe.reporting import run_tables as tables
from segpipe.reporting.latex import write_latex
from segpipe.reporting.methods import FILE as METHODS
from segpipe.reporting.methods import methods, on_page, write_methods
from segpipe.reporting.methods_record import record_of_run
from segpipe.reporting.next_steps import NextSteps, next_steps
from segpipe.reporting.page import Link, Page, Picture, Table, write_page
from segpipe.reporting.run_record import FACTS, RunRecord, plain
from segpipe.reporting.score_tables import summary_values
from segpipe.reporting.viewer import Viewer, ViewerBudget, make_viewer
from segpipe.stored import SCHEMA
from segpipe.terminal import relative_to_cwd
from segpipe.text import first_line
from segpipe.training.callbacks.history import CASES
from segpipe.training.callbacks.phases import PhaseTimer
from segpipe.training.initial_record import FILE as INITIAL
from segpipe.verdict import Verdict, judge

log = logging.getLogger("segpipe")
FILE = "report.html"
MACHINES = "report.json"
BESIDE = (
    "validation.csv",
    CASES,
    "metrics.csv",
    "split.json",
    FACTS,
    "plan.yaml",
    "config.yaml",
    "network.json",
    "stages.json",
    INITIAL,
    "postprocess.json",
    "quality.json",
    "doctor.csv",
    "environment.json",
    "train.log",
    "tables.tex",
    "methods.md",
    "methods.tex",
    "methods.bib",
)


@dataclass(frozen=True)
class Report(Page):
    """The content of `report.html`; what the run has not come to is None or empty.

    Attributes:
        stopped: why the run is not done; empty where it is done.
        verdict: on the scores by the best checkpoint; None where there are none.
        next: what follows from them.
        facts: the run in a few numbers, name and text.
        summary: per label, the means over cases.
        worst: picture of the case with the lowest Dice.
        scored: how the cases were scored.
        boxes: each metric over the cases of each label.
        curves: loss and Dice over the steps.
        volumes: predicted against true volumes.
        reliability: how often predictions are right, by their probability.
        cases: a picture of each case, the worst first.
        scores: a row per case and label, the worst first.
        viewer: the viewer of volumes, where it is requested.
        fingerprint: the cases as plots.
        split: names of the cases, by part.
        sides: how many cases each part has, in words.
        findings: the findings of the doctor.
        plan: entry and reason.
        initial: what became of the weights that it started from.
        network: its drawing.
        stages: time and memory.
        command: that started the run.
        alone: command of this run alone; empty where it is not one of a sweep.
        environment: name and text.
        methods: paragraphs for a paper; none where the run is not done.
        files: beside the page.
    """

    stopped: str
    verdict: Verdict | None
    next: NextSteps
    facts: Sequence[tuple[str, str]]
    summary: Table | None
    worst: Picture | None
    scored: str
    boxes: Picture | None
    curves: Picture | None
    volumes: Picture | None
    reliability: Picture | None
    cases: Table | None
    scores: Table | None
    viewer: Viewer | None
    fingerprint: Picture | None
    split: Mapping[str, Sequence[str]]
    sides: Mapping[str, str]
    findings: Table | None
    plan: Table
    initial: Table | None
    network: Picture | None
    stages: Table
    command: str
    alone: str
    environment: Sequence[tuple[str, str]]
    methods: Sequence[str]
    files: Sequence[Link]


def write_interrupted(folder: Path, phases: PhaseTimer, error: BaseException) -> None:
    """Write the page of a run that `error` ended, and say how to go on; never raise.

    Args:
        folder: the run's folder, in which the run is recorded already.
        phases: the phases of the run.
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
        again = typed("resume", relative_to_cwd(folder))
        log.warning("go on with: %s %s", invocation("train"), again)


def _why(error: BaseException) -> str:
    """Return in a few words what ended a run."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    return f"stopped by {type(error).__name__}: {first_line(error)}"


def write_facts(folder: Path, facts: Facts) -> None:
    """Write the fingerprint of the cases, `fingerprint.json`, from which the page is drawn."""
    write_json(folder / FACTS, asdict(facts))


def write_report(folder: Path, stopped: str = "", viewer: ViewerBudget | None = None) -> None:
    """Write `report.html` and `report.json` of a run, with what there is so far.

    Args:
        folder: the run's folder, with at least config, plan, split and environment.
        stopped: why the run is not done; empty where it is done.
        viewer: volumes for the viewer, where it is requested.

    Raises:
        DataError: if they cannot be written.
    """
    run = RunRecord(folder)
    content = plain(_for_machines(run, stopped))
    write_text(folder / MACHINES, json.dumps(content, indent=1, allow_nan=False) + "\n")
    pictures = tables.case_pictures(run)
    verdict = judge(run.scores, "training")
    page = Report(
        title=f"Run {run.config['name']}, {folder.resolve().name}",
        lead=tables.lead(run),
        stopped=stopped,
        verdict=verdict,
        next=next_steps(run, verdict),
        facts=tables.facts(run),
        summary=tables.summary(run),
        worst=tables.worst(run, pictures),
        scored=tables.scored(run),
        boxes=charts.boxes(run),
        curves=charts.curves(run),
        volumes=charts.volumes(run),
        reliability=charts.reliability(run),
        cases=tables.cases(run, pictures),
        scores=tables.scores(run),
        viewer=None if viewer is None else make_viewer(viewer, run.labels),
        fingerprint=charts.fingerprint(run),
        split=run.split,
        sides=tables.sides(run),
        findings=tables.findings(run),
        plan=tables.plan(run),
        initial=tables.initial(run),
        network=charts.network(run),
        stages=tables.stages(run),
        command=tables.command(run),
        alone=tables.alone(run),
        environment=tables.environment(run),
        methods=[] if stopped else _for_paper(run),
        files=[Link(name, name) for name in (MACHINES, *BESIDE) if (folder / name).is_file()],
    )
    write_page(folder / FILE, "run.html", page)


def _for_machines(run: RunRecord, stopped: str) -> dict[str, object]:
    """Return the content of `report.json`."""
    verdict = judge(run.scores, "training")
    return {
        "schema": SCHEMA,
        "stopped": stopped or None,
        "verdict": None if verdict is None else verdict.to_values(),
        "next": asdict(next_steps(run, verdict)),
        "summary": summary_values(run.scores) if run.scores else [],
        "scores": [score.to_values() for score in run.scores],
        "last_validation": [asdict(case) for case in run.last],
        "metrics": run.metrics,
        "stages": [asdict(stage) for stage in run.stages],
        "split": run.split,
        "plan": run.plan,
        "fingerprint": run.json(FACTS),
        "initial": run.json(INITIAL),
        "postprocess": run.postprocess or None,
        "quality": run.quality or None,
        "findings": run.rows("doctor.csv"),
        "network": run.network,
        "config": run.config,
        "environment": run.environment,
    }


def _for_paper(run: RunRecord) -> list[str]:
    """Write the result as a LaTeX table, and the methods; return the methods for the page.

    Nothing is written of a run that is not scored.
    """
    result = tables.summary(run)
    if result is None:
        return []
    write_latex(run.folder / "tables.tex", {"result": result})
    record = record_of_run(run)
    write_methods(run.folder / METHODS, record)
    return list(map(on_page, methods(record)))
