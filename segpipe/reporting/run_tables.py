"""The tables and facts of a run's page, made from the run's record."""

import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from segpipe.metrics import Score, mean_dice_of, metrics_of, summarise
from segpipe.reporting.page import Cell, Column, Link, Picture, Sorted, Table, embed_all
from segpipe.reporting.run_record import RunRecord
from segpipe.text import agreeing, count

WIDTH = 1000  # pixels of a case's picture inside the page
PICTURES_MIB = 24.0  # beyond this, pictures are linked: a larger page is slow to open
POLICY = (
    "By the best checkpoint, on whole scans in their own geometry. A label that neither mask has "
    "is not counted; one that only one of them has scores Dice, IoU and NSD 0 and the image's "
    "diagonal as distance."
)
FINDING = ("case", "severity", "problem", "what to do")


def lead(run: RunRecord) -> str:
    """Return the run in one line."""
    train = len(run.split["train"])
    val = len(run.split["val"])
    steps = run.metrics[-1]["step"] if run.metrics else 0
    cases = f"{agreeing(train, 'case', 'train')}, {agreeing(val, 'case', 'validate')}"
    text = f"{cases}; {count(round(steps), 'step')}"
    if run.scores:
        text += f"; mean Dice {summarise(run.scores)[-1].dice:.3f}"
    return f"{text}."


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
    return f"{best['dice/mean']:.4f}, after step {best['step']:.0f}" if best else ""


def scored(run: RunRecord) -> str:
    """Return how the cases were scored; an empty string where they were not."""
    if run.scores:
        return POLICY
    if run.last:
        return f"By the last validation during training, after step {run.last[0].step}."
    return ""


def summary(run: RunRecord) -> Table | None:
    """Return a row per label with the means over cases, and the mean of the labels."""
    if not run.scores:
        return None
    columns = [Column("label")]
    for metric in metrics_of("summary").values():
        columns.append(Column(run.units.in_text(metric.heading), metric.digits))
    columns += [Column("misses", 0), Column("false alarms", 0)]
    cases = {score.case for score in run.scores}
    rows = [list(line.to_values().values()) for line in summarise(run.scores)]
    return Table(f"means over {count(len(cases), 'validation case')}", columns, rows)


def scores(run: RunRecord) -> Table | None:
    """Return a row per case and label, the lowest Dice first; targets in neither mask are last."""
    columns = [Column("case"), Column("label")]
    rows: list[list[Cell]] = []
    if run.scores:
        for metric in metrics_of("scores").values():
            columns.append(Column(run.units.in_text(metric.heading), metric.digits))
        for name in ("volume", "truth"):
            columns.append(Column(f"{name}, {run.units.volume}", run.units.digits))
        for score in run.scores:
            cells: list[Cell] = [*score.to_values().values()]
            cells[-2:] = map(run.units.of_volume, (score.volume_ml, score.truth_ml))
            rows.append(cells)
    elif run.last:
        columns.append(Column("Dice", metrics_of("scores")["dice"].digits))
        for last in run.last:
            rows.append([last.case, last.label, last.dice])
    else:
        return None
    dice = [score.dice for score in run.scores or run.last]
    order = np.argsort(np.nan_to_num(dice, nan=np.inf), kind="stable")
    by_dice = Sorted([column.name for column in columns].index("Dice"))
    caption = "every case and label, the worst first"
    return Table(caption, columns, [rows[index] for index in order], by_dice)


def case_pictures(run: RunRecord) -> dict[str, Picture]:
    """Return pictures of cases, the worst first, as many as there is room for."""
    files = {name: run.folder / "overlays" / f"{name}.png" for name in _ranked(run)}
    alt = "truth and prediction over the scan in three slices"
    return embed_all(files, alt, WIDTH, PICTURES_MIB)


def _by_case(scores: Sequence[Score]) -> dict[str, list[Score]]:
    cases: dict[str, list[Score]] = {}
    for score in scores:
        cases.setdefault(score.case, []).append(score)
    return cases


def _ranked(run: RunRecord) -> dict[str, float]:
    """Return the mean Dice of each case, the worst first and unknown ones last."""
    dice = {name: mean_dice_of(scores) for name, scores in _by_case(run.scores).items()}
    order = sorted(dice, key=lambda name: (np.isnan(dice[name]), dice[name]))
    return {name: dice[name] for name in order}


def cases(run: RunRecord, pictures: Mapping[str, Picture]) -> Table | None:
    """Return a row per case with its picture, the worst first."""
    if not run.scores:
        return None
    digits = metrics_of("scores")["dice"].digits
    labels = list(dict.fromkeys(score.label for score in run.scores))
    columns = [Column("case"), Column("picture", sortable=False), Column("Dice, mean", digits)]
    columns += [Column(f"Dice {label}", digits) for label in labels]
    by_case = _by_case(run.scores)
    rows: list[list[Cell]] = []
    for name, mean in _ranked(run).items():
        dice = {score.label: score.dice for score in by_case[name]}
        rows.append([name, _picture(run, name, pictures), mean, *map(dice.get, labels)])
    caption = (
        "prediction filled, truth dashed; a click enlarges a picture, which is in full size in "
        "overlays/"
    )
    return Table(caption, columns, rows, Sorted(2))


def _picture(run: RunRecord, name: str, pictures: Mapping[str, Picture]) -> Picture | Link | None:
    """Return the picture of a case, a link to it where there is no room, or None."""
    if name in pictures:
        return pictures[name]
    file = f"overlays/{name}.png"
    return Link("picture", file) if (run.folder / file).is_file() else None


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
    rows: list[list[Cell]] = []
    for line in run.plan["reasons"]:
        entry, _, reason = line.partition(": ")
        rows.append([entry, reason])
    return Table("what was derived, and why", [Column("entry"), Column("reason")], rows)


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
    """Return the command that started the run."""
    typed = run.environment["command"]
    return f"python {typed}" if _is_script(typed) else typed


def alone(run: RunRecord) -> str:
    """Return the command that repeats this run of a sweep alone.

    Returns:
        The command; an empty string where the run is not one of a sweep.
    """
    if not (run.folder.resolve().parent / "multirun.yaml").is_file():
        return ""
    words = shlex.split(command(run))
    program = words[: 2 if _is_script(run.environment["command"]) else 1]
    return shlex.join([*program, *run.environment["overrides"]])


def _is_script(command: str) -> bool:
    return shlex.split(command)[0].endswith(".py")


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
