"""A study of skip connections on eight real data sets: one command, one table, one figure.

    python benchmarks/skips.py --data ../shared/data                                    # short by long skips
    python benchmarks/skips.py --data DIR --study per_level --only hippocampus --only chase   # some sets
    python benchmarks/skips.py --data DIR trainer.max_steps=1000                        # with overrides

The sets and their splits are those of `datasets.py`, with one fold of the abdominal scans and one stain of the blood
cells. Each study is `train.py study=...` as typed: the same steps for every variant and seed, and as many parameters.
One that is done is not run again, and one that was interrupted goes on.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import SETS, DataSet, set_parser, write_cases
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
ONCE = [
    data_set
    for data_set in SETS
    if data_set.name.removeprefix("chaos_mr_t2_") not in ("1", "2", "3")
    and data_set.name != "wbc_other_stain"
]
UNUSED = ["trainer.postprocess=false", "trainer.quality=false"]  # of runs that only a study reads
PANELS = {"dice": "Dice, points", "nsd": "NSD, points"}
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9")
LEGEND_COLUMNS = 3  # of variants' names, which are long


def main() -> None:
    """Run what is missing, then write and print the table, and draw the figure."""
    parser = set_parser(__doc__, ONCE, Path("runs/skips"))
    parser.add_argument("--study", default="short_by_long", help="of conf/study")
    options = parser.parse_args()
    output = options.output / options.study
    for data_set in ONCE:
        folder = output / data_set.name
        is_asked_for = not options.only or data_set.name in options.only
        if is_asked_for and not (folder / "sweep" / "study.json").exists():
            run_study(data_set, options.data, folder, options.study, options.overrides)
    show(output)


def run_study(
    data_set: DataSet, data: Path, folder: Path, study: str, overrides: Sequence[str]
) -> None:
    """Run the study of a set, or go on with it.

    Raises:
        SystemExit: if `train.py` fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep = folder / "sweep"
    table = folder / "cases.csv"
    write_cases(data_set, data, table)
    call = [sys.executable, str(ROOT / "train.py")]
    if (sweep / "multirun.yaml").exists():
        call.append(f"resume={sweep}")
    else:
        call += [f"study={study}", "data=table", f"data.root={table.absolute()}"]
        call += [f"model={data_set.model}", f"name={data_set.name}", f"hydra.sweep.dir={sweep}"]
        call += [*UNUSED, *overrides]
        if data_set.names:
            call.append(f"data.labels={data_set.names}")
    print(f"\n{data_set.name}: {' '.join(call[1:])}", flush=True)
    ended = subprocess.run(call, check=False).returncode
    if ended:
        sys.exit(f"{data_set.name}: train.py ended with {ended}")


def show(output: Path) -> None:
    """Print and write the table of all sets that are done, and draw their differences."""
    studies: dict[str, dict[str, Any]] = {}
    for data_set in ONCE:
        file = output / data_set.name / "sweep" / "study.json"
        if file.exists():
            studies[data_set.name] = json.loads(file.read_text())
    if not studies:
        return
    lines: list[str] = []
    for metric in PANELS:
        lines += [*table(studies, metric), ""]
    (output / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)
    draw(studies, output / "differences.png")


def means(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a study that are means over labels, one for each variant."""
    return [row for row in study["scores"] if row["label"] == "mean"]


def table(studies: dict[str, dict[str, Any]], metric: str) -> list[str]:
    """Return a table of one metric in Markdown: a row per set, a column per variant."""
    variants = [row["variant"] for row in means(next(iter(studies.values())))]
    headings = ["set", "cases", *variants]
    lines = [f"{metric}, with the difference to the reference and its 95 % interval, points", ""]
    lines += [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for name, study in studies.items():
        rows = means(study)
        cells = [name, str(rows[0]["cases"]), *[cell(row, metric) for row in rows]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(row: dict[str, Any], metric: str) -> str:
    """Return a variant's score with its difference to the reference; a star where p is below 0.05."""
    score = f"{row[metric]:.3f}"
    if row[f"{metric}_difference"] is None:
        return score
    values = [row[f"{metric}_difference{end}"] for end in ("", "_low", "_high")]
    difference, low, high = [f"{100 * value:+.1f}" for value in values]
    p = row[f"{metric}_p_holm"]
    star = "*" if p is not None and p < 0.05 else ""
    return f"{score} ({difference}{star}, {low} to {high})"


def draw(studies: dict[str, dict[str, Any]], picture: Path) -> None:
    """Draw each variant less the reference with its interval: a row per set, a panel per metric."""
    figure = Figure(figsize=(10, 1.4 + 0.55 * len(studies)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, metric in zip(panels, PANELS, strict=True):
        draw_panel(axes, studies, metric)
    reference = next(iter(studies.values()))["reference"]
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=LEGEND_COLUMNS, fontsize=9)
    figure.supxlabel(f"less {reference}; bars: 95 % intervals over cases", fontsize=9)
    figure.savefig(picture, dpi=110)


def draw_panel(axes: Axes, studies: dict[str, dict[str, Any]], metric: str) -> None:
    """Draw the differences of one metric."""
    for place, study in enumerate(studies.values()):
        rows = [row for row in means(study) if row[f"{metric}_difference"] is not None]
        for number, row in enumerate(rows):
            ends = [row[f"{metric}_difference_low"], row[f"{metric}_difference_high"]]
            mean = row[f"{metric}_difference"]
            y = place + 0.22 * (number - (len(rows) - 1) / 2)
            colour = COLOURS[number % len(COLOURS)]
            axes.plot([100 * end for end in ends], [y, y], color=colour, linewidth=1.6)
            label = row["variant"] if place == 0 else None
            axes.plot(100 * mean, y, "o", color=colour, markersize=4, label=label)
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(studies)), list(studies))
    axes.set(ylim=(len(studies) - 0.5, -0.5), xlabel=PANELS[metric])
    axes.grid(axis="x", alpha=0.3)


if __name__ == "__main__":
    main()
