"""Training with and without trained weights (`init=RUN`) where few cases are labelled.

    python benchmarks/fine_tune.py --data ../shared/data                     # both pairs
    python benchmarks/fine_tune.py --data DIR --only wbc --steps 100         # one pair, fewer steps

Two pairs: white blood cells in one stain, then in another with the same labels; the hippocampus as
one region, then its two parts in other patients. A pair is one run on the source, and a sweep of
`train.py` for each number of labelled cases: `init=null,RUN` times three seeds, as many steps each,
all on the same held-out cases. The statistics are the sweep's own (`study.csv`). What is done is not
run again.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import read_rows

ROOT = Path(__file__).resolve().parents[1]
CASES = (5, 10, 20)
SEEDS = 3


@dataclass(frozen=True)
class Pair:
    """A data set to learn from, and another one with few labels.

    Attributes:
        name: of the pair.
        folder: below the folder of all sets.
        images: name of the folder of images, beside which that of the labels is.
        labels: likewise.
        in_source: whether a case, by its position among the sorted names and its name, is one of
            the source.
        held_out: likewise, whether a case of the target is only scored.
        source: overrides of the run on the source.
        target: overrides of the runs on the target.
        model: overrides of all runs.
    """

    name: str
    folder: str
    images: str
    labels: str
    in_source: Callable[[int, str], bool]
    held_out: Callable[[int, str], bool]
    source: Sequence[str]
    target: Sequence[str]
    model: Sequence[str]


WBC = "data.labels={background:0,cytoplasm:1,nucleus:2}"
HIPPOCAMPUS = "data.labels={background:0,anterior:1,posterior:2}"
PAIRS = [
    Pair(
        "wbc",
        "wbc",
        "images",
        "labels",
        in_source=lambda _, name: name.startswith("a_"),
        held_out=lambda position, _: position % 5 in (2, 3),  # 20 of 50
        source=[WBC, "plan.patch=[96,96]", "plan.batch=4"],
        # its pictures are 300 px wide, those of the source 120
        target=[WBC, "plan.spacing=[2.5,2.5,1]", "plan.patch=[64,64]", "plan.batch=2"],
        model=["model=unet2d", "model.channels=[8,16,32,64]"],
    ),
    Pair(
        "hippocampus",
        "Task04_Hippocampus",
        "imagesTr",
        "labelsTr",
        in_source=lambda position, _: position % 5 in (0, 1),  # 80 of 200
        held_out=lambda position, _: position % 10 == 2,  # 20, half of those of the figures
        source=[HIPPOCAMPUS, "data.regions={hippocampus:[1,2]}"],
        target=[HIPPOCAMPUS],
        model=["model=unet3d", "model.channels=[8,16,32]", "plan.patch=[32,32,32]"],
    ),
]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [pair.name for pair in PAIRS]
    parser.add_argument("--data", type=Path, required=True, help="folder of all sets")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these pairs")
    parser.add_argument("--steps", type=int, default=80, help="of each run on the target")
    parser.add_argument("--source-steps", type=int, default=200, help="of a run on the source")
    parser.add_argument("--output", type=Path, default=Path("runs/fine_tune"), help="folder")
    parser.add_argument("overrides", nargs="*", help="of train.py, for the runs on the target")
    options = parser.parse_args()
    chosen = [pair for pair in PAIRS if pair.name in options.only]
    for pair in chosen:
        folder = options.output / pair.name
        write_tables(pair, options.data, folder)
        source = folder / "source"
        if not (source / "validation.csv").exists():
            words = [*pair.source, f"trainer.max_steps={options.source_steps}"]
            train(pair, folder / "source.csv", [*words, f"hydra.run.dir={source}"])
        for number in CASES:
            sweep = folder / f"cases_{number}"
            if (sweep / "study.csv").exists():
                continue
            words = ["-m", *pair.target, f"seed={seeds()}", f"init=null,{source}"]
            words += [f"trainer.max_steps={options.steps}", f"hydra.sweep.dir={sweep}"]
            train(pair, folder / f"cases_{number}.csv", [*words, *options.overrides])
    print("\n".join(["", *table(options.output, chosen)]))


def seeds() -> str:
    """Return the seeds of a sweep."""
    return ",".join(map(str, range(SEEDS)))


def write_tables(pair: Pair, data: Path, folder: Path) -> None:
    """Write the table of the source's cases, and one for each number of labelled cases."""
    folder.mkdir(parents=True, exist_ok=True)
    place = data.absolute() / pair.folder
    source: list[str] = []
    target: list[str] = []
    files = {file.name.partition(".")[0]: file for file in (place / pair.images).iterdir()}
    named = sorted(name for name in files if name)
    for position, name in enumerate(named):
        (source if pair.in_source(position, name) else target).append(name)
    held_out = [name for name in target if pair.held_out(named.index(name), name)]
    labelled = [name for name in target if name not in held_out]
    tables = {"source": (source[1::6], [name for name in source if name not in source[1::6]])}
    for number in CASES:
        every = len(labelled) / number
        few = [labelled[int(index * every)] for index in range(number)]
        tables[f"cases_{number}"] = (held_out, few)
    for table, (val, train) in tables.items():
        with (folder / f"{table}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "image", "label", "split"])
            for name in sorted({*val, *train}):
                label = place / pair.labels / files[name].name
                writer.writerow([name, files[name], label, "val" if name in val else "train"])


def train(pair: Pair, cases: Path, words: Sequence[str]) -> None:
    """Run `train.py` on a table of cases, validated once, at the end.

    Raises:
        SystemExit: if it fails.
    """
    common = ["data=table", f"data.root={cases.absolute()}", "trainer.validations=1"]
    common += ["trainer.postprocess=false", "page.cases=0", "comparison.overlays=0"]
    common += ["data.workers=0", f"name=fine_tune_{pair.name}"]
    call = [sys.executable, str(ROOT / "train.py"), *words, *common, *pair.model]
    print(" ".join(call[1:]), flush=True)
    if subprocess.run(call, check=False).returncode:
        sys.exit(f"{pair.name}: train.py failed")


def table(output: Path, pairs: Sequence[Pair]) -> list[str]:
    """Return the lines of a table: Dice without and with trained weights, and the difference."""
    lines = ["| pair | labelled cases | random weights | `init=RUN` | difference, 95 % | p |"]
    lines.append("|---|---|---|---|---|---|")
    for pair in pairs:
        for number in CASES:
            file = output / pair.name / f"cases_{number}" / "study.csv"
            rows = [row for row in read_rows(file) if row["label"] == "mean"]
            random, started = rows
            cells = [pair.name, str(number), score(random), score(started)]
            ends = (started["dice_difference_low"], started["dice_difference_high"])
            low, high = (f"{float(end):+.3f}" for end in ends)
            cells.append(f"{float(started['dice_difference']):+.3f} [{low}, {high}]")
            cells.append(f"{float(started['dice_p_holm']):.2g}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def score(row: dict[str, str]) -> str:
    """Return the mean Dice of a variant, and its standard deviation over runs."""
    return f"{float(row['dice']):.3f} ± {float(row['dice_sd']):.3f}"


if __name__ == "__main__":
    main()
