"""The tables and facts of a run's page, made from the run's record."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from segpipe.config.quoting import as_typed
from segpipe.config.scoring import Scoring
from segpipe.metrics import mean_dice_of, metrics_of, summarise, tolerance_text
from segpipe.reporting.page import Cell, Column, Picture, Sorted, Table, embed_all
from segpipe.reporting.run_record import RunRecord
from segpipe.reporting.score_tables import (
    cases_table,
    policy,
    ranked_cases,
    scores_table,
    summary_table,
)
from segpipe.text import count

WIDTH = 1400  # pixels of a case's picture inside the page
PICTURES_MIB = 24.0  # beyond this, pictures are linked: a larger page is slow to open
OVERLAY = "truth and prediction over the scan in three slices"
SCORED = "By the best checkpoint, on whole scans in their own geometry."
FINDING = ("case", "severity", "problem", "what to do")


def lead(run: RunRecord) -> str:
    """Return the run in one line."""
    steps = run.metrics[-1]["step"] if run.metrics else 0
    text = f"{', '.join(sides(run).values())}; {count(round(steps), 'step')}"
    if run.scores:
        text += f"; mean Dice {summarise(run.scores)[-1].dice:.3f}"
    return f"{text}."


def sides(run: RunRecord) -> dict[str, str]:
    """Return how many cases train and how many validate, in words."""
    sides = {"train": "training case", "val": "validation case"}
    return {side: count(len(run.split[side]), noun) for side, noun in sides.items()}


def facts(run: RunRecord) -> list[tuple[str, str]]:
    """Return the run in a few numbers, as name and text."""
    facts = {
        "labels": ", ".join(run.labels),
        "channels": ", ".join(run.plan["channels"]),
        "dataset": str(run.config["data"]["root"]),
        "best mean Dice in training": _best_dice(run),
    }
    if run.network:
        facts["parameters"] = f"{run.network['parameters']:,}"
    if np.isfinite(run.seconds_per_step):
        facts["seconds a step, median"] = f"{run.seconds_per_step:.3f}"
    if run.postprocess:
        facts["post-processing"] = str(run.postprocess.get("line", ""))
    if run.quality:
        facts["predicted quality"] = str(run.quality.get("line", ""))
    facts["seed"] = str(run.config["seed"])
    facts["device"] = run.environment["device"]
    return [(name, text) for name, text in facts.items() if text]


def _best_dice(run: RunRecord) -> str:
    """Return the highest mean Dice and its step; an empty string before the first validation."""
    best = None
    for row in run.metrics:
        dice = row.get("dice/mean", np.nan)
        if np.isfinite(dice) and (best is None or dice > best["dice/mean"]):
            best = row
    return f"{best['dice/mean']:.3f}, after step {best['step']:.0f}" if best else ""


def scored(run: RunRecord) -> str:
    """Return how the cases were scored; an empty string where they were not."""
    if run.scores:
        scoring = Scoring(**{name: run.config[name] for name in Scoring.model_fields})
        tolerance = run.units.in_text(tolerance_text(scoring))
        return f"{SCORED} {policy(run.scores)} NSD counts surfaces within {tolerance} as equal."
    if run.last:
        return f"By the last validation during training, after step {run.last[0].step}."
    return ""


def summary(run: RunRecord) -> Table | None:
    """Return a row per label with the means over cases, and the mean of the labels."""
    if not run.scores:
        return None
    cases = {score.case for score in run.scores}
    caption = f"means over {count(len(cases), 'validation case')}"
    return summary_table(run.scores, run.units, caption)


def scores(run: RunRecord) -> Table | None:
    """Return a row per case and label, the lowest Dice first; targets in neither mask are last."""
    if run.scores:
        return scores_table(run.scores, run.units)
    if not run.last:
        return None
    columns = [Column("case"), Column("label"), Column("Dice", metrics_of("scores")["dice"].digits)]
    worst_first = sorted(run.last, key=lambda last: float(np.nan_to_num(last.dice, nan=np.inf)))
    rows = [[last.case, last.label, last.dice] for last in worst_first]
    return Table("every case and label, the worst first", columns, rows, Sorted(2))


def case_pictures(run: RunRecord) -> dict[str, Picture]:
    """Return pictures of cases, the worst first, as many as there is room for."""
    files = {name: run.folder / "overlays" / f"{name}.png" for name in ranked_cases(run.scores)}
    return embed_all(files, OVERLAY, WIDTH, PICTURES_MIB)


def worst(run: RunRecord, pictures: Mapping[str, Picture]) -> Picture | None:
    """Return the picture of the worst case, with name and Dice below; None where there is none."""
    for name, picture in pictures.items():
        dice = mean_dice_of([score for score in run.scores if score.case == name])
        return replace(picture, caption=f"the worst case: {name}, mean Dice {dice:.3f}")
    return None


def cases(run: RunRecord, pictures: Mapping[str, Picture]) -> Table | None:
    """Return a row per case with its picture, the worst first."""
    return cases_table(run.scores, pictures, run.folder) if run.scores else None


def findings(run: RunRecord) -> Table | None:
    """Return the findings of the doctor; None where there are none."""
    rows: list[list[Cell]] = []
    for finding in run.rows("doctor.csv"):
        remedy = finding["remedy"] if "remedy" in finding else finding["mend"]  # as in 0.1.0
        rows.append([finding["case"], finding["severity"], finding["problem"], remedy])
    if not rows:
        return None
    columns = list(map(Column, FINDING))
    return Table(f"{count(len(rows), 'finding')} of the doctor", columns, rows)


def plan(run: RunRecord) -> Table:
    """Return each entry of the plan with its reason."""
    return plan_table(run.plan["reasons"])


def plan_table(reasons: Sequence[str]) -> Table:
    """Return each entry of a plan with its reason, of lines `entry value: why`."""
    rows: list[list[Cell]] = []
    for line in reasons:
        entry, _, reason = line.partition(": ")
        rows.append([entry, reason])
    return Table("what was derived, and why", [Column("entry"), Column("reason")], rows)


def initial(run: RunRecord) -> Table | None:
    """Return what was loaded, new and left of the weights that the run started from, if it had."""
    if run.initial is None:
        return None
    source = run.initial.source
    trained = f"{source.step:,} steps on {source.data or 'data that were not noted'}"
    caption = f"the weights of {source.path}, {trained}"
    columns = [Column("what"), Column("number", 0), Column("of")]
    return Table(caption, columns, list(map(list, run.initial.rows)))


def stages(run: RunRecord) -> Table:
    """Return time and memory of each stage."""
    on_device = any(stage.device_mib is not None for stage in run.stages)
    columns = [Column("stage"), Column("seconds", 1), Column("memory until its end, MiB", 0)]
    if on_device:
        columns.append(Column("GPU memory until its end, MiB", 0))
    rows: list[list[Cell]] = []
    for stage in run.stages:
        cells: list[Cell] = [stage.name, stage.seconds, stage.memory_mib, stage.device_mib]
        rows.append(cells[: len(columns)])
    total = sum(stage.seconds for stage in run.stages)
    memory = "memory is the most that the process had in use"
    return Table(f"{total:.0f} seconds of wall time; {memory}", columns, rows)


def command(run: RunRecord) -> str:
    """Return the command that started the run, whatever folder the program was in."""
    program, *words = shlex.split(run.environment["command"])
    program = PurePath(program).name
    python = ["python"] if program.endswith(".py") else []
    return shlex.join([*python, program, *map(as_typed, words)])


def alone(run: RunRecord) -> str:
    """Return the command that repeats this run of a sweep alone.

    Returns:
        The command; an empty string where the run is not one of a sweep.
    """
    if not (run.folder.resolve().parent / "multirun.yaml").is_file():
        return ""
    words = shlex.split(command(run))
    program = words[: 2 if words[0] == "python" else 1]
    return shlex.join([*program, *map(as_typed, run.environment["overrides"])])


def environment(run: RunRecord) -> list[tuple[str, str]]:
    """Return what is needed to repeat the run, beside its command, as name and text."""
    known = run.environment
    return [
        ("git revision", known["revision"] or "not in a repository"),
        ("seed", str(run.config["seed"])),
        ("Python", known["python"]),
        *known["versions"].items(),
        ("platform", known["platform"]),
        ("device", known["device"]),
    ]
