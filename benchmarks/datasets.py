"""The default recipe on eight real data sets: one command, one table, one page.

    python benchmarks/datasets.py --data ../shared/data                      # all sets, 10 minutes each
    python benchmarks/datasets.py --data DIR --only chase --only usgra --minutes 2  # some sets, a smaller budget
    python benchmarks/datasets.py --data DIR --before FOLDER                 # beside the figures of an earlier call
    python benchmarks/datasets.py --data DIR augment=standard                # with overrides, for all sets alike

The splits are fixed, by patient, child or rat where a set says whose image is whose; nothing is tuned on a set. A set
that is done is not run again, and one that was interrupted goes on, so the same command can be typed until all are
done. Each run is `train.py` as typed; its own scores of the held-out cases (`validation.csv`) make the table.
"""

import argparse
import csv
import html
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
IMAGES = (".nii.gz", ".png", ".jpg")
MEASURES = ("dice", "nsd", "hd95", "stray_volume", "object_f1", "cldice")


@dataclass(frozen=True)
class DataSet:
    """A data set with its split.

    Attributes:
        name: of the row in the table.
        folder: below the folder of all sets.
        held_out: whether a case, by its position among the sorted names and its name, is held out.
        used: likewise, whether a case takes part at all.
        images: name of the folder of images.
        labels: name of the folder of label maps.
        model: the preset.
        names: label name -> id.
        metrics: what is measured beside the usual metrics and what lies far from every label.
    """

    name: str
    folder: str
    held_out: Callable[[int, str], bool]
    used: Callable[[str], bool] = lambda _: True
    images: str = "images"
    labels: str = "labels"
    model: str = "unet2d"
    names: str = ""
    metrics: tuple[str, ...] = ()


def every_fifth(position: int, _: str) -> bool:
    """Return whether a case is every fifth one, starting with the third."""
    return position % 5 == 2


def fold_of_chaos(fold: int) -> DataSet:
    """Return one of four folds of the abdominal MR scans, of which there are 16."""
    return DataSet(
        f"chaos_mr_t2_{fold}",
        "chaos_mr_t2",
        lambda position, _: position % 4 == fold,
        model="unet3d",
        names="{background:0,liver:1,right_kidney:2,left_kidney:3,spleen:4}",
    )


SETS = [
    DataSet(
        "hippocampus",
        "Task04_Hippocampus",
        every_fifth,
        images="imagesTr",
        labels="labelsTr",
        model="unet3d",
        names="{background:0,anterior:1,posterior:2}",
    ),
    DataSet(
        "nuclei", "nuclei", every_fifth, names="{background:0,nucleus:1}", metrics=("object_f1",)
    ),
    *[fold_of_chaos(fold) for fold in range(4)],
    DataSet("mouse_brain", "mouse_brain", every_fifth, model="unet3d"),
    DataSet(  # by child: two eyes each
        "chase",
        "chase",
        lambda position, _: position >= 20,
        names="{background:0,vessel:1}",
        metrics=("cldice",),
    ),
    DataSet("usgra", "usgra", every_fifth, names="{background:0,nerve:1,vessel:2}"),
    DataSet(  # by rat
        "axon_sem",
        "axon_sem",
        lambda _, name: name.startswith(("sub-rat2_", "sub-rat4_", "sub-rat7_")),
        names="{background:0,myelin:1,axon:2}",
        metrics=("object_f1",),
    ),
    DataSet(  # a_112 and a_139 are one image
        "wbc",
        "wbc",
        lambda position, name: every_fifth(position, name) and name not in ("a_112", "a_139"),
        used=lambda name: name.startswith("a_"),
        names="{background:0,cytoplasm:1,nucleus:2}",
    ),
    DataSet(
        "wbc_other_stain",
        "wbc",
        lambda _, name: name.startswith("b_"),
        names="{background:0,cytoplasm:1,nucleus:2}",
    ),
]


def main() -> None:
    """Run what is missing, then write and print the table."""
    parser = set_parser(__doc__, SETS, Path("runs/datasets"))
    parser.add_argument("--minutes", type=float, default=10, help="of training for each set")
    parser.add_argument("--before", type=Path, help="the output of an earlier call")
    options = parser.parse_args()
    for data_set in SETS:
        folder = options.output / data_set.name
        is_asked_for = not options.only or data_set.name in options.only
        if is_asked_for and not (folder / "measured.json").exists():
            train(data_set, options.data, folder, options.minutes, options.overrides)
            show(options.output, options.before)
    show(options.output, options.before)


def set_parser(
    description: str | None, sets: Sequence[DataSet], output: Path
) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every benchmark of these sets takes.

    Args:
        description: what the benchmark does.
        sets: the sets that `--only` may name.
        output: the default of `--output`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [data_set.name for data_set in sets]
    parser.add_argument("--data", type=Path, required=True, help="folder of all sets")
    parser.add_argument("--only", action="append", choices=names, help="this set; may be repeated")
    parser.add_argument("--output", type=Path, default=output, help="folder")
    parser.add_argument("overrides", nargs="*", help="of train.py, for all sets")
    return parser


def train(
    data_set: DataSet, data: Path, folder: Path, minutes: float, overrides: Sequence[str]
) -> None:
    """Train on a set, or go on with it, and write `measured.json` beside the run.

    Raises:
        SystemExit: if `train.py` fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    table = folder / "cases.csv"
    write_cases(data_set, data, table)
    call = [sys.executable, str(ROOT / "train.py")]
    if (run / "checkpoints" / "last.ckpt").exists():
        call.append(f"resume={run}")
    else:
        call += ["data=table", f"data.root={table.absolute()}", f"model={data_set.model}"]
        call += [f"name={data_set.name}", f"hydra.run.dir={run}"]
        budget = time.strftime("00:%H:%M:%S", time.gmtime(60 * minutes))
        metrics = ",".join(["usual", "stray_volume", *data_set.metrics])
        call += [f"trainer.max_time={budget}", f"metrics=[{metrics}]", *overrides]
        if data_set.names:
            call.append(f"data.labels={data_set.names}")
    print(f"\n{data_set.name}: {' '.join(call[1:])}", flush=True)
    start = time.perf_counter()
    process = subprocess.Popen(call)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{data_set.name}: train.py ended with {process.returncode}")
    measured = {
        "seconds": time.perf_counter() - start,
        "peak_mib": usage.ru_maxrss / 1024,
        "steps": int(read_rows(run / "metrics.csv")[-1]["step"]) + 1,
    }
    (folder / "measured.json").write_text(json.dumps(measured))


def write_cases(data_set: DataSet, data: Path, table: Path) -> None:
    """Write the table of a set's cases, with the split."""
    images = data.absolute() / data_set.folder / data_set.images
    labels = data.absolute() / data_set.folder / data_set.labels
    found = {}
    for file in images.iterdir():
        suffix = next((ending for ending in IMAGES if file.name.endswith(ending)), None)
        name = file.name.removesuffix(suffix or "")
        if suffix and data_set.used(name):
            label = labels / f"{name}{'.nii.gz' if suffix == '.nii.gz' else '.png'}"
            found[name] = (file, label)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "image", "label", "split"])
        for position, name in enumerate(sorted(found)):
            split = "val" if data_set.held_out(position, name) else "train"
            writer.writerow([name, *found[name], split])


def read_rows(table: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float:
    """Return a score, NaN where a case has none, as for a label that it lacks."""
    return float(text or "nan")


def summary(folder: Path) -> dict[str, float]:
    """Return the means over labels of a set's scores, with what the run took."""
    rows = read_rows(folder / "run" / "validation.csv")
    found = json.loads((folder / "measured.json").read_text())
    for measure in MEASURES:
        column = next((name for name in rows[0] if name.startswith(measure)), None)
        if column is None:
            continue
        means = []
        for label in sorted({row["label"] for row in rows}):
            values = [number(row[column]) for row in rows if row["label"] == label]
            means.append(np.nanmean(values) if np.isfinite(values).any() else np.nan)
        found[column] = float(np.nanmean(means))
    return found


def show(output: Path, before: Path | None) -> None:
    """Print the table of all sets that are done, and write it with pictures as `index.html`."""
    parts = []
    lines = []
    for data_set in SETS:
        folder = output / data_set.name
        if not (folder / "measured.json").exists():
            continue
        facts = [f"{key} {value:.4g}" for key, value in summary(folder).items()]
        if before is not None and (before / data_set.name / "measured.json").exists():
            earlier = summary(before / data_set.name)
            facts.append(f"before: dice {earlier['dice']:.4f} in {earlier['steps']:.0f} steps")
        lines.append(f"{data_set.name:16}{', '.join(facts)}")
        known = [
            row
            for row in read_rows(folder / "run" / "validation.csv")
            if np.isfinite(number(row["dice"]))
        ]
        worst = min(known, key=lambda row: float(row["dice"]))
        parts.append(
            f"<h2>{data_set.name}</h2><p>{html.escape(', '.join(facts))}; worst: "
            f"{html.escape(worst['case'])}, {html.escape(worst['label'])} "
            f'({worst["dice"]}), <a href="{data_set.name}/run/report.html">report</a></p>'
            f'<img style="max-width:100%" src="{data_set.name}/run/overlays/{worst["case"]}.png">'
        )
    print("\n".join(lines), flush=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "index.html").write_text(
        f"<!doctype html><meta charset=utf-8><title>Data sets</title>{''.join(parts)}"
    )


if __name__ == "__main__":
    main()
