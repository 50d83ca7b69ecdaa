"""Does the predicted quality find the bad masks? Rank correlation with the true Dice, and what a reader saves.

    python benchmarks/quality.py RUN [RUN ...]            # runs with validation cases, such as runs/demo/DATE_TIME
    python benchmarks/quality.py RUN --copies 2 --cases 40

Of each run, all validation cases are segmented, and copies of each that were made worse in one way. A model learns from
one half of the cases and predicts the other half, and the reverse, so that every figure is of cases that neither the
network nor the model has seen. The second figure of a pair is of models that know no copy of the kind that they
predict: the wrong contrast, for example, by one that has never seen a wrong contrast.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from scipy.stats import spearmanr

from segpipe import checkpoint
from segpipe.config.compose import defaults
from segpipe.config.probe import Robustness
from segpipe.config.validation import validate
from segpipe.data.cases import Case
from segpipe.device import choose_format
from segpipe.prediction.outputs import measure_quality
from segpipe.prediction.predictor import Predictor
from segpipe.probe.trained import find_cases
from segpipe.quality import predict_quality
from segpipe.training.quality_learning import (
    STRENGTHS,
    Change,
    JudgedScan,
    judge_scan,
    learn_quality,
)

TURNS = 5  # scans of which the cost is measured


def main() -> None:
    """Print a line for each run and kind of scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, default=3, help="of each case")
    parser.add_argument("--cases", type=int, default=60, help="at most, of each run")
    parser.add_argument(
        "--keep", type=Path, help="folder where what was measured stays, to be read again"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| run | scans | number | mean Dice | Spearman | mean error | worst 10 % in the first 20 % |"
    )
    for run in asked.runs:
        measure(run, asked.copies, asked.cases, asked.keep)


def measure(run: Path, copies: int, most: int, keep: Path | None) -> None:
    """Print the figures of one run."""
    device = torch.device("cpu")
    trained = checkpoint.load(run)
    predictor = Predictor.of(trained, device, choose_format("auto", device))
    predictor = predictor.with_postprocess(trained.postprocess)
    options = validate(Robustness, defaults("robustness") | {"checkpoint": [str(run)]})
    cases = find_cases(options, trained)
    cases = [cases[index] for index in np.random.default_rng(0).permutation(len(cases))[:most]]
    kept = None if keep is None else keep / f"{run.parent.name}_{run.name}.json"
    if kept is not None and kept.is_file():
        rows = json.loads(kept.read_text())
        scans = [JudgedScan(name, Change(*change), *others) for name, change, *others in rows]
    else:
        scans = judge_all(predictor, cases, copies)
    if kept is not None:
        rows = [[scan.case, scan.change, scan.measured, scan.dice] for scan in scans]
        kept.write_text(json.dumps(rows))
    names = [case.name for case in cases]
    predicted = [predict_all(scans, names, knows) for knows in (True, False)]
    true = np.array([scan.dice for scan in scans])
    kinds = np.array([scan.change.kind for scan in scans])
    name = run.parent.name if run.name == "run" else run.name
    chosen = {"as they are": kinds == ""}
    chosen |= {kind: kinds == kind for kind in STRENGTHS}
    chosen |= {"made worse": kinds != "", "all": kinds == kinds}
    for title, rows in chosen.items():
        if rows.any():
            show(f"| {name} | {title}", true[rows], [of[rows] for of in predicted])
    print_cost(predictor, cases, scans)


def judge_all(predictor: Predictor, cases: Sequence[Case], copies: int) -> list[JudgedScan]:
    """Return all cases with copies of them, the kinds of change in turn."""
    rng = np.random.default_rng(0)
    kinds = list(STRENGTHS)
    scans: list[JudgedScan] = []
    for number, case in enumerate(cases):
        scans.append(judge_scan(predictor, case, Change()))
        for index in range(number * copies, (number + 1) * copies):
            kind = kinds[index % len(kinds)]
            change = Change(kind, rng.uniform(*STRENGTHS[kind]), index)
            scans.append(judge_scan(predictor, case, change))
    return scans


def predict_all(scans: Sequence[JudgedScan], names: Sequence[str], knows: bool) -> np.ndarray:
    """Return the predicted Dice of each scan, by a model of other cases.

    Args:
        scans: of all cases.
        names: of the cases.
        knows: whether the model has seen the kind of change that it predicts.
    """
    predicted = np.zeros(len(scans))
    halves = [set(names[0::2]), set(names[1::2])]
    for half, other in (halves, halves[::-1]):
        for kind in ("", *STRENGTHS):
            taught = [scan for scan in scans if scan.case in other]
            if kind and not knows:
                taught = [scan for scan in taught if scan.change.kind != kind]
            model = learn_quality(taught)
            assert model is not None, "too few cases"
            for index, scan in enumerate(scans):
                if scan.case in half and scan.change.kind == kind:
                    predicted[index] = model.predict(scan.measured).dice
    return predicted


def show(start: str, true: np.ndarray, predicted: Sequence[np.ndarray]) -> None:
    """Print one line of the table, with a pair of figures for each of two predictions."""
    worst = np.argsort(true, kind="stable")[: max(1, round(len(true) / 10))]
    ranks: list[str] = []
    errors: list[str] = []
    found: list[str] = []
    for values in predicted:
        ranks.append(f"{spearmanr(true, values).statistic:.2f}")
        errors.append(f"{np.abs(true - values).mean():.3f}")
        read = np.argsort(values, kind="stable")[: round(len(true) / 5)]
        found.append(str(len(set(worst) & set(read))))
    cells = [start, len(true), f"{true.mean():.3f}", " / ".join(ranks), " / ".join(errors)]
    cells.append(f"{' / '.join(found)} of {len(worst)}")
    print(" | ".join(map(str, cells)), "|", flush=True)


def print_cost(predictor: Predictor, cases: Sequence[Case], scans: Sequence[JudgedScan]) -> None:
    """Print the seconds of a prediction with and without its quality, medians of turns."""
    model = learn_quality(scans)
    assert model is not None
    measuring = copy.copy(predictor)
    measuring.measures_confidence = True
    without: list[float] = []
    with_it: list[float] = []
    for case in [*cases[:1], *cases[:TURNS]]:
        start = time.process_time()
        predictor.predict(case.images)
        middle = time.process_time()
        prediction = measuring.predict(case.images)
        predict_quality([model], measure_quality(prediction, predictor.plan))
        without.append(middle - start)
        with_it.append(time.process_time() - middle)
    ratio = np.median(np.array(with_it[1:]) / np.array(without[1:]))
    print(
        f"  CPU a scan: {np.median(without[1:]):.3f} s, with the quality {np.median(with_it[1:]):.3f}"
        f" s, ratio {ratio:.3f}; {model}",
        flush=True,
    )


if __name__ == "__main__":
    main()
