"""Images without millimetres are spoken of in pixels."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.config import composed

from segpipe.data.cases import Case
from segpipe.data.inspection import inspect_case
from segpipe.metrics import metrics_of
from segpipe.planning.fingerprint import fingerprint
from segpipe.planning.rules import make_plan
from segpipe.prediction.records import ScanRecord
from segpipe.reporting.prediction_summary import Outcomes, show_batch
from segpipe.text import rounded
from segpipe.units import UNITS, unit_name

MM = re.compile(r"\bmm\b|mL")


@pytest.mark.parametrize(
    ("number", "text"),
    [(5476.4, "5,480"), (0.0125, "0.0125"), (12.5, "12.5"), (999.6, "1,000"), (1e7, "10,000,000")],
)
def test_numbers_are_rounded_without_an_exponent(number: float, text: str) -> None:
    assert rounded(number) == text


def test_headings_and_volumes() -> None:
    assert [UNITS["px2"].in_text(metric.heading) for metric in metrics_of("summary").values()][
        1:3
    ] == [
        "HD95 px",
        "NSD",
    ]
    assert UNITS["mm"].in_text("HD95 mm, 2 mL") == "HD95 mm, 2 mL"
    assert UNITS["px3"].in_text("HD95 mm, 2 mL") == "HD95 px, 2 px³"
    assert UNITS["px2"].of_volume(0.25) == 250
    assert (unit_name("mm", 1), unit_name("px", 1), unit_name("px", 9)) == ("mm", "px2", "px3")


def test_the_plan_of_images_is_in_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inspected = []
    for number in range(3):
        image = tmp_path / f"image{number}.png"
        label = tmp_path / f"label{number}.png"
        grey = rng.integers(0, 255, (40, 32), np.uint8)
        Image.fromarray(grey).save(image)
        Image.fromarray((grey > 99).astype(np.uint8)).save(label)
        inspected.append(inspect_case(Case(str(number), (image,), label), None))
    found = fingerprint(inspected)
    assert found.unit == "px2"
    options = composed("model=unet2d", "model.channels=[4,8]")
    plan = make_plan(options, found, ["grey"], {"background": 0, "cell": 1}, "cpu")
    assert plan.unit == "px2"
    assert not MM.search("\n".join(plan.reasons))
    assert any(" px²" in reason for reason in plan.reasons)


def test_volumes_in_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = ScanRecord("a", volumes_ml=[0.25], voxels=[250], labels=["cell"], unit="px2")
    show_batch(Outcomes(new=[record]), ["cell"], str(tmp_path), None)
    shown = capsys.readouterr()
    assert "volumes, px²" in shown.out + shown.err
    assert "250" in shown.out + shown.err
    assert not MM.search(shown.out + shown.err)
