"""The tables and facts of a run's page, made of the run's record."""

import shlex
from collections.abc import Mapping

import numpy as np

from segpipe.metrics import summarise
from segpipe.reporting.page import Cell, Column, Link, Picture, Sorted, Table, embed_all
from segpipe.reporting.run_record import Record
from segpipe.training.scoring import mean_dice_of

WIDTH = 1000  # pixels of a case's picture inside the page
PICTURES_MIB = 24.0  # beyond this, they are linked: a page of more is slow to open
SCORES = {
    "Dice": 3,
    "IoU": 3,
    "HD95, mm": 2,
    "ASSD, mm": 2,
    "NSD": 3,
    "volume, mL": 2,
    "truth, mL": 2,
}


def lead(run: Record) -> str:
    """The run in one line."""
    steps = run.metrics[-1]["step"] if run.metrics else 0
    train, val = (len(run.split[part]) for part in ("train", "val"))
    said = f"{train} cases train, {val} validate; {steps:.0f} steps"
    found = {one.label: one.dice for one in summarise(run.scores)} if run.scores else {}
    return f"{said}; mean Dice {found['mean']:.3f}." if found else f"{said}."


def facts(run: Record) -> list[tuple[str, str]]:
    """The run in a few numbers."""
    network, cost = run.json("network.json"), run.json("cost.json")
    dice = [
        (row["dice/mean"], row["step"])
        for row in run.metrics
        if np.isfinite(row.get("dice/mean", np.nan))
    ]
    best = max(dice, default=None)
    known = [
        ("labels", ", ".join(run.labels)),
        ("channels", ", ".join(run.plan["channels"])),
        ("dataset", str(run.config["data"]["root"])),
        ("best mean Dice in training", f"{best[0]:.4f}, after step {best[1]:.0f}" if best else ""),
        ("parameters", f"{network['parameters']:,}" if network else ""),
        ("seconds a step, median", f"{cost['seconds_per_step']:.3f}" if cost else ""),
        ("seed", str(run.config["seed"])),
        ("device", run.environment["device"]),
    ]
    return [(name, text) for name, text in known if text]


def scored(run: Record) -> str:
    """By what the cases were scored."""
    if run.scores:
        return (
            "By the best checkpoint, on whole scans in their own geometry. A label that neither mask has is not "
            "counted; one that only one of them has scores Dice, IoU and NSD 0 and the image's diagonal as distance."
        )
    return (
        f"By the last validation during training, after step {run.last[0].step}."
        if run.last
        else ""
    )


def summary(run: Record) -> Table | None:
    """Means over cases, a row per label, and their mean."""
    if not run.scores:
        return None
    columns = [Column("label"), *(Column(name, digits) for name, digits in
               (("Dice", 3), ("HD95, mm", 2), ("NSD", 3), ("misses", 0), ("false alarms", 0)))]  # fmt: skip
    rows: list[list[Cell]] = [
        [one.label, one.dice, one.hd95_mm, one.nsd, one.misses, one.false_alarms]
        for one in summarise(run.scores)
    ]
    return Table(
        f"means over {_count(len({one.case for one in run.scores}), 'validation case')}",
        columns,
        rows,
    )


def scores(run: Record) -> Table | None:
    """A row per case and label, the lowest Dice first; those that neither mask has last."""
    if run.scores:
        columns = [
            Column("case"),
            Column("label"),
            *(Column(name, digits) for name, digits in SCORES.items()),
        ]
        rows: list[list[Cell]] = [
            [
                one.case,
                one.label,
                one.dice,
                one.iou,
                one.hd95_mm,
                one.assd_mm,
                one.nsd,
                one.volume_ml,
                one.truth_ml,
            ]
            for one in run.scores
        ]
    elif run.last:
        columns = [Column("case"), Column("label"), Column("Dice", 3)]
        rows = [[one.case, one.label, one.dice] for one in run.last]
    else:
        return None
    dice = [one.dice for one in run.scores or run.last]
    order = np.argsort(np.nan_to_num(dice, nan=np.inf), kind="stable")
    return Table(
        "every case and label, the worst first",
        columns,
        [rows[place] for place in order],
        Sorted(2),
    )


def case_pictures(run: Record) -> dict[str, Picture]:
    """Pictures of cases, the worst first, as many as there is room for."""
    files = {name: run.folder / "overlays" / f"{name}.png" for name in _ranked(run)}
    return embed_all(
        files, "truth and prediction over the scan in three slices", WIDTH, PICTURES_MIB
    )


def _ranked(run: Record) -> dict[str, float]:
    """Cases by their mean Dice, the worst first."""
    names = dict.fromkeys(one.case for one in run.scores)
    dice = {name: mean_dice_of([one for one in run.scores if one.case == name]) for name in names}
    return dict(sorted(dice.items(), key=lambda one: (np.isnan(one[1]), one[1])))


def cases(run: Record, pictures: Mapping[str, Picture]) -> Table | None:
    """A row per case with its picture, the worst first."""
    if not run.scores:
        return None
    labels = list(dict.fromkeys(one.label for one in run.scores))
    dice = {(one.case, one.label): one.dice for one in run.scores}
    columns = [Column("case"), Column("picture", sortable=False), Column("Dice, mean", 3)]
    columns += [Column(f"Dice {label}", 3) for label in labels]
    rows: list[list[Cell]] = []
    for name, mean in _ranked(run).items():
        drawn = (run.folder / "overlays" / f"{name}.png").is_file()
        picture = pictures.get(name) or (Link("picture", f"overlays/{name}.png") if drawn else None)
        rows.append([name, picture, mean, *(dice.get((name, label)) for label in labels)])
    caption = "prediction filled, truth dashed; a click enlarges a picture, which is in full size in overlays/"
    return Table(caption, columns, rows, Sorted(2))


def findings(run: Record) -> Table | None:
    """What the doctor has found; None where that is nothing."""
    rows: list[list[Cell]] = []
    for row in run.rows("doctor.csv"):
        remedy = row["remedy"] if "remedy" in row else row["mend"]  # its name in 0.1.0
        rows.append([row["case"], row["severity"], row["problem"], remedy])
    columns = [Column(name) for name in ("case", "severity", "problem", "what to do")]
    return Table(f"{_count(len(rows), 'finding')} of the doctor", columns, rows) if rows else None


def plan(run: Record) -> Table:
    """Each entry with its reason."""
    rows: list[list[Cell]] = [
        [entry, why] for entry, _, why in (one.partition(": ") for one in run.plan["reasons"])
    ]
    return Table("what was derived, and why", [Column("entry"), Column("reason")], rows)


def stages(run: Record) -> Table:
    """Time and memory of each stage."""
    on_device = any(one.device_mib is not None for one in run.stages)
    columns = [Column("stage"), Column("seconds", 1), Column("memory until its end, MiB", 0)]
    columns += [Column("GPU memory until its end, MiB", 0)] if on_device else []
    rows: list[list[Cell]] = [
        [one.name, one.seconds, one.memory_mib, *([one.device_mib] if on_device else [])]
        for one in run.stages
    ]
    total = sum(one.seconds for one in run.stages)
    return Table(
        f"{total:.0f} seconds of wall time; memory is the most that the process had in use",
        columns,
        rows,
    )


def command(run: Record) -> str:
    """What was typed."""
    typed = run.environment["command"]
    return f"python {typed}" if shlex.split(typed)[0].endswith(".py") else typed


def alone(run: Record) -> str:
    """What would be typed for this run of a sweep alone; empty where it is no run of a sweep."""
    words = shlex.split(run.environment["command"])
    if not (run.folder.resolve().parent / "multirun.yaml").is_file():
        return ""
    return shlex.join(
        [
            *shlex.split(command(run))[: 2 if words[0].endswith(".py") else 1],
            *run.environment["overrides"],
        ]
    )


def environment(run: Record) -> list[tuple[str, str]]:
    """What is needed to repeat the run, beside its command."""
    known = run.environment
    return [
        ("git revision", known["revision"] or "not in a repository"),
        ("seed", str(run.config["seed"])),
        ("Python", known["python"]),
        *known["versions"].items(),
        ("platform", known["platform"]),
        ("device", known["device"]),
    ]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
