"""A folder of predictions, made by hand."""

from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.metrics import Score
from segpipe.prediction.records import ScanRecord

HOSTILE = "<script>alert(1)</script>"


def options(folder: Path) -> Predict:
    return validate(
        Predict,
        defaults("predict") | {"checkpoint": "run", "input": "scans", "output": str(folder)},
    )


def done(name: str, dice: float | None = None, volume: float = 2.0) -> ScanRecord:
    scores: list[Score] = []
    if dice is not None:
        scores.append(Score(name, "liver", {"dice": dice}, volume, 2.0))
    seconds = {"read": 0.1, "network": 3.21, "resample": 0.5, "write": 0.2}
    return ScanRecord(name, "", "", seconds, [volume], [9], scores, images=[f"scans/{name}.nii.gz"], labels=["liver"], drawn=True)  # fmt: skip


def draw(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "overlays" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (400, 900, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "overlays" / f"{name}.png")
