"""A run's folder as a training leaves it, made by hand in no time."""

import copy
import csv
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from segpipe.config.compose import defaults
from segpipe.metrics import Score, write_scores
from segpipe.planning.fingerprint import CaseFacts, Facts, Intensities
from segpipe.reporting.run_page import write_facts

HOSTILE = "<script>alert(1)</script>"
LABELS = ["liver", "vessel"]
DICE = {"easy": (0.95, 0.9), "hard": (0.7, 0.1), HOSTILE: (0.9, float("nan"))}


@functools.cache
def usual_config() -> dict[str, Any]:
    """The options of a training of which nothing is overridden."""
    return defaults("train")


def begun(folder: Path) -> Path:
    """What is there before the first step."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(usual_config())
    config |= {"name": "trial", "seed": 7, "data": {**config["data"], "root": "data/x"}}
    plan = {
        "labels": {"background": 0, "liver": 1, "vessel": 4}, "channels": ["MRI"], "spacing_mm": [1.0, 1.0, 1.0],
        "regions": None, "ignore": None, "patch": [8, 8, 8], "batch": 2, "slice_axis": None, "strides": [[2, 2, 2]],
        "kernels": [[3, 3, 3], [3, 3, 3]], "normalise": ["zscore"], "foreground": [[0.0, 1.0, 0.5, 0.2]],
        "reasons": ["patch 8x8x8: small cases", "batch 2: given"],
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    (folder / "split.json").write_text(json.dumps({"train": ["t1", "t2"], "val": list(DICE)}))
    environment = {"command": "/x/train.py name=trial seed=7", "overrides": ["name=trial", "seed=7"], "revision": "abc1234",
                   "python": "3.11.7", "versions": {"segpipe": "0.1.0"}, "platform": "Linux", "device": "CPU, 2 threads"}  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def validated(folder: Path) -> Path:
    """What is there when a run is interrupted after a validation."""
    begun(folder)
    (folder / "metrics.csv").write_text(
        "epoch,step,loss,lr,dice/liver,dice/vessel,dice/mean\n0,50,1.2,0.01,,,\n1,100,0.8,0.005,0.85,0.5,0.675\n"
    )
    with (folder / "dice.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "case", "label", "dice"])
        table.writerows(
            [100, case, label, dice]
            for case, row in DICE.items()
            for label, dice in zip(LABELS, row, strict=True)
        )
    return folder


def done(folder: Path) -> Path:
    """What is there at the end."""
    validated(folder)
    scores: list[Score] = []
    for case, row in DICE.items():
        for label, dice in zip(LABELS, row, strict=True):
            values = {"dice": dice, "iou": dice / 2, "hd95_mm": 3.0, "assd_mm": 1.0, "nsd": 0.5}
            scores.append(Score(case, label, values, 20.0, 21.0))
    write_scores(scores, folder / "validation.csv")
    cases = [
        CaseFacts(name, part, [40, 41, 42], [1.0, 1.0, 2.5], {"liver": 60.0, "vessel": 0.0})
        for name, part in (("t1", "train"), ("t2", "train"), ("easy", "val"))
    ]
    write_facts(folder, Facts(cases, [Intensities("MRI", [0.0, 1.0, 2.0], [3, 4])]))
    (folder / "overlays").mkdir()
    for name in ("easy", "hard"):
        Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(folder / "overlays" / f"{name}.png")
        Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(folder / "network.png")
    (folder / "network.json").write_text(json.dumps({"parameters": 1234, "stages": []}))
    (folder / "doctor.csv").write_text(
        f"case,severity,kind,problem,remedy\nt2,warning,spacing,{HOSTILE} is odd,look at it\n"
    )
    (folder / "stages.json").write_text(
        json.dumps([{"name": "training", "seconds": 12.5, "memory_mib": 700.0, "device_mib": None}])
    )
    return folder
