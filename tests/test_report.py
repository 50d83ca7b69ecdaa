"""Pictures are there, of a size to look at, and show what they should."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from segpipe.report import COLOURS, OPACITY, draw_curves, draw_overlay

NAMES = ["liver", "kidney"]


def pixels(picture: Path) -> np.ndarray:
    return np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)


def shows(picture: Path, colour: tuple[float, ...]) -> int:
    return int((np.abs(pixels(picture) - np.round(255 * np.array(colour))).max(axis=1) <= 3).sum())


def labelled(shape: tuple[int, int, int]) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[2:8, 3:9] = 1
    labels[9:12, 3:9] = 2
    return labels


@pytest.mark.parametrize("shape", [(14, 12, 10), (14, 12, 1)])
def test_an_overlay_shows_every_label_and_the_truth(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    picture = tmp_path / "overlays" / "case.png"
    image, labels = np.full(shape, 100.0), labelled(shape)
    image[0, 0, 0] = 300
    draw_overlay(image, labels, np.roll(labels, 1, 1), (1.0, 1.5, 3.0), NAMES, "case", picture)
    for place in range(2):
        on_black = OPACITY * np.array(to_rgb(COLOURS[place]))
        assert shows(picture, tuple(on_black)) > 500, NAMES[place]
    with Image.open(picture) as drawn:
        assert 300 < drawn.width < 2000
        assert 300 < drawn.height < 1000
    assert [path.name for path in picture.parent.iterdir()] == ["case.png"]


@pytest.mark.parametrize("empty", ["prediction", "truth", "both", "flat", "thin"])
def test_an_overlay_of_nothing_is_still_a_picture(tmp_path: Path, empty: str) -> None:
    shape = (1, 12, 10) if empty == "thin" else (14, 12, 10)
    image = np.zeros(shape) if empty == "flat" else np.random.default_rng(0).normal(size=shape)
    labels, nothing = labelled((14, 12, 10))[: shape[0]], np.zeros(shape, np.uint8)
    prediction = nothing if empty in ("prediction", "both") else labels
    truth = nothing if empty in ("truth", "both") else labels
    draw_overlay(image, prediction, truth, (1.0, 1.0, 1.0), NAMES, "case", tmp_path / "case.png")
    assert len(pixels(tmp_path / "case.png")) > 100_000


def test_the_patients_right_is_on_the_left(tmp_path: Path) -> None:
    """A label at the patient's right (low x of RAS+) and front (high y) lies at the top left of the axial view."""
    image, labels = np.zeros((20, 20, 1)), np.zeros((20, 20, 1), np.uint8)
    labels[16:19, 16:19] = 1  # left and front
    draw_overlay(image, labels, None, (1.0, 1.0, 1.0), ["x"], "", tmp_path / "case.png")
    drawn = np.asarray(Image.open(tmp_path / "case.png").convert("RGB")).astype(int)
    fill = np.round(255 * OPACITY * np.array(to_rgb(COLOURS[0])))
    rows, columns = np.nonzero(np.abs(drawn - fill).max(axis=2) <= 3)
    assert rows.mean() < drawn.shape[0] * 0.4
    assert columns.mean() < drawn.shape[1] * 0.4


@pytest.mark.parametrize(
    "text",
    [
        "epoch,step,loss,lr,dice/liver,dice/mean\n0,50,1.2,0.001,,\n1,100,0.8,0.001,0.5,0.5\n2,150,0.7,0.0005,0.6,0.6\n",
        "epoch,step,loss,lr\n0,50,1.2,0.001\n",
        "epoch,step\n0,50\n",
    ],
)
def test_curves_can_be_drawn_from_the_first_epoch_on(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert len(pixels(tmp_path / "curves.png")) > 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]
