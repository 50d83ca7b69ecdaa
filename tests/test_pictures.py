"""Pictures are there, of a size to look at, and show what they should."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from segpipe.metrics import Score
from segpipe.probe.robustness_picture import Curves, draw_robustness
from segpipe.reporting.agreement import draw_volumes
from segpipe.reporting.contrast import window
from segpipe.reporting.pictures import COLOURS, DASHES, colour, draw_overlay
from segpipe.reporting.plots import draw_curves
from segpipe.units import UNITS

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
def test_an_overlay_shows_the_outline_of_every_label_over_the_whole_image(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    picture = tmp_path / "overlays" / "case.png"
    image, labels = np.full(shape, 100.0), labelled(shape)
    image[0, 0] = 0
    image[-1, -1] = 500
    draw_overlay(image, labels, np.roll(labels, 1, 1), (1.0, 1.5, 3.0), NAMES, "case", picture)
    for place in range(2):
        assert shows(picture, to_rgb(COLOURS[place])) > 500, NAMES[place]
    grey = pixels(picture).astype(int)
    is_image = (np.ptp(grey, axis=1) == 0) & (grey[:, 0] > 40) & (grey[:, 0] < 60)
    assert is_image.mean() > 0.3, "the image is under the masks too"
    with Image.open(picture) as drawn:
        assert 600 < drawn.width < 1600
        assert 300 < drawn.height < 1200
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
    """RAS+: x grows to the patient's right, y to the front. Right and front is the top left of the axial view."""
    image, labels = np.zeros((20, 20, 1)), np.zeros((20, 20, 1), np.uint8)
    labels[16:19, 16:19] = 1  # right and front
    draw_overlay(image, labels, None, (1.0, 1.0, 1.0), ["x"], "", tmp_path / "case.png")
    drawn = np.asarray(Image.open(tmp_path / "case.png").convert("RGB")).astype(int)
    drawn = drawn[: int(0.8 * len(drawn))]  # without the legend
    line = np.round(255 * np.array(to_rgb(COLOURS[0])))
    rows, columns = np.nonzero(np.abs(drawn - line).max(axis=2) <= 3)
    assert rows.mean() < drawn.shape[0] * 0.4
    assert columns.mean() < drawn.shape[1] * 0.4


@pytest.mark.parametrize("has_truth", [True, False])
def test_the_truth_is_solid_and_the_prediction_dashed_where_there_is_a_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_truth: bool
) -> None:
    drawn: list[object] = []
    contour = Axes.contour

    def listen(axes: Axes, *args: object, **kwargs: object) -> object:
        drawn.append((kwargs["colors"], kwargs["linestyles"]))
        return contour(axes, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Axes, "contour", listen)
    labels = np.zeros((8, 9, 1), np.uint8)
    labels[2:4, 2:4] = 2
    truth = labels if has_truth else None
    draw_overlay(
        np.zeros(labels.shape), labels, truth, (1.0, 1.0, 1.0), NAMES, "", tmp_path / "a.png"
    )
    own = [colour(1)]
    expected = [(own, ["-"]), (own, [DASHES])] if has_truth else [(own, ["-"])]
    assert drawn == expected


def test_the_pixels_of_a_large_image_are_visible_in_its_picture(tmp_path: Path) -> None:
    labels = np.zeros((1400, 1400, 1), np.uint8)
    labels[4:9, 4:9] = 1
    image = np.random.default_rng(0).normal(size=labels.shape)
    draw_overlay(image, labels, None, (1.0, 1.0, 1.0), ["x"], "", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as drawn:
        assert 1300 < drawn.width < 1800


@pytest.mark.parametrize(
    ("shape", "panels"), [((14, 12, 10), 3), ((14, 12, 1), 1), ((1, 14, 12), 1), ((9, 1, 1), 1)]
)
def test_a_view_per_direction_that_has_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], panels: int
) -> None:
    drawn = texts(monkeypatch)
    labels = np.ones(shape, np.uint8)
    draw_overlay(
        np.zeros(shape), labels, None, (0.5, 0.5, 2.0), ["x"], "case", tmp_path / "case.png"
    )
    assert sum("slice" in text for text in drawn) == panels


def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with all that the next picture says."""
    said: list[str] = []
    save = Figure.savefig

    def listen(figure: Figure, *args: object, **kwargs: object) -> None:
        said.extend(text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts])
        said.extend(text.get_text() for legend in figure.legends for text in legend.get_texts())
        said.extend([figure.get_suptitle()])
        save(figure, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Figure, "savefig", listen)
    return said


def test_a_picture_says_where_the_sides_are_how_long_a_millimetre_is_and_what_is_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = texts(monkeypatch)
    labels = labelled((14, 12, 10))
    draw_overlay(
        np.zeros(labels.shape),
        labels,
        labels,
        (3.0, 3.0, 3.0),
        [*NAMES, "spleen"],
        "case 7",
        tmp_path / "a.png",
    )
    assert {"R", "L", "A", "P", "S", "I", "10 mm", *NAMES, "truth"} <= set(said)
    assert "spleen" not in said, "is in neither mask"
    assert "case 7\nradiological view: the patient's right is on the left" in said


def test_a_picture_without_a_title_has_no_line_above_its_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = texts(monkeypatch)
    labels = labelled((14, 12, 10))
    draw_overlay(
        np.zeros(labels.shape), labels, None, (1.0, 1.0, 1.0), NAMES, "", tmp_path / "a.png"
    )
    assert not any("radiological" in text for text in said)
    assert {"R", "L"} <= set(said)


def test_a_photograph_has_pixels_and_no_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = texts(monkeypatch)
    labels = labelled((14, 12, 1))
    draw_overlay(
        np.zeros(labels.shape), labels, None, (1.0, 1.0, 1.0), NAMES, "case", tmp_path / "a.png"
    )
    assert "2 px" in said
    assert not {"R", "L", "A", "P"} & set(said)
    assert "case" in said


def test_an_outline_follows_the_edges_of_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label of 2 x 3 voxels of 1 x 2 mm at the lower corner: its outline's corners are where the voxels' are."""
    outlines = []
    contour = Axes.contour

    def keep(axes: Axes, *args: object, **kwargs: object) -> object:
        drawn = contour(axes, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        outlines.append(drawn.get_paths()[0].vertices)
        return drawn

    monkeypatch.setattr(Axes, "contour", keep)
    labels = np.zeros((20, 20, 1), np.uint8)
    labels[4:6, 7:10] = 1
    draw_overlay(
        np.zeros(labels.shape), labels, None, (1.0, 2.0, 1.0), ["x"], "", tmp_path / "a.png"
    )
    (outline,) = outlines
    assert outline.min(0) == pytest.approx([20 - 6, 40 - 20], abs=0.15)
    assert outline.max(0) == pytest.approx([20 - 4, 40 - 14], abs=0.15)
    for corner in ((14, 20), (16, 20), (14, 26), (16, 26)):
        assert np.linalg.norm(outline - corner, axis=1).min() < 0.3, (
            "half a voxel's diagonal would be 1.1"
        )


def test_the_grey_window_is_robust_and_shows_the_soft_tissue_of_a_ct() -> None:
    rng = np.random.default_rng(0)
    scan, nowhere = rng.normal(100, 10, (20, 20, 20)), np.zeros((20, 20, 20), bool)
    scan[0, 0, 0] = 1e6
    assert np.median(window(scan, nowhere)) == pytest.approx(0.5, abs=0.1)
    body, organ = np.full((20, 20, 20), -1000.0), nowhere.copy()
    body[5:15, 5:15, 5:15], organ[5:8, 5:8, 5:8] = 40, True
    assert window(body, nowhere)[9, 9, 9] == pytest.approx(0.5)
    body[organ] = -800  # a label in the lung
    seen = window(body, organ)
    assert seen[0, 0, 0] == 0
    assert (
        0
        < window(np.where(organ, rng.normal(-800, 50, body.shape), body), organ)[organ].mean()
        < seen[9, 9, 9]
    )
    speck = np.zeros((20, 20, 20))
    speck[3, 3, 3] = 0.01
    assert (window(speck, nowhere).min(), window(speck, nowhere).max()) == (0, 1)
    assert np.isfinite(window(np.full((4, 4, 4), np.nan), np.zeros((4, 4, 4), bool))).all()
    speck[4, 4, 4] = np.nan
    assert np.isfinite(window(speck, nowhere)).all()


def test_colours_of_many_labels_differ() -> None:
    colours = np.array([colour(place) for place in range(21)])
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 9 * np.eye(21)
    assert apart.min() > 0.15
    assert ((colours >= 0) & (colours <= 1)).all()


def curves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[float], list[float]]]:
    """Fills with the name, steps and values of each curve that is drawn next."""
    drawn: list[tuple[str, list[float], list[float]]] = []
    plot = Axes.plot

    def keep(axes: Axes, *args: np.ndarray, **kwargs: object) -> object:
        drawn.append(
            (str(kwargs.get("label", "")), *(np.asarray(values).tolist() for values in args))
        )
        return plot(axes, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Axes, "plot", keep)
    return drawn


def test_curves_show_what_was_measured_when_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, said = curves(monkeypatch), texts(monkeypatch)
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,loss,lr,val_loss,dice/liver,dice/mean\n"
        "0,50,1.2,0.2,,,\n1,100,0.8,0.1,0.9,0.7,0.6\n2,150,,,1.1,0.5,0.4\n"
    )
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert drawn[:3] == [
        ("training, mean of an epoch", [50, 100], [1.2, 0.8]),
        ("validation, fixed patches without augmentation", [100, 150], [0.9, 1.1]),
        ("", [50, 100], [0.2, 0.1]),
    ]
    assert ("liver", [100, 150], [0.7, 0.5]) in drawn
    assert ("mean", [100, 150], [0.6, 0.4]) in drawn
    assert any("best mean 0.600, step 100" in text for text in said)


def test_a_long_training_has_a_smooth_curve_over_the_raw_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = curves(monkeypatch)
    noise = np.random.default_rng(0).normal(0, 0.1, 200)
    rows = "".join(f"{epoch},{epoch * 50},{1 + noise[epoch]},0.001\n" for epoch in range(200))
    (tmp_path / "metrics.csv").write_text(f"epoch,step,loss,lr\n{rows}")
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    raw, smooth = (np.array(values) for _, _, values in drawn[:2])
    assert raw == pytest.approx(1 + noise)
    assert smooth.std() < raw.std() / 2
    assert smooth.mean() == pytest.approx(raw.mean(), abs=0.01)


@pytest.mark.parametrize(
    "text",
    [
        "epoch,step,loss,lr,dice/liver,dice/mean\n0,50,1.2,0.001,,\n1,100,0.8,0.001,0.5,0.5\n2,150,0.7,0.0005,0.6,0.6\n",
        "epoch,step,loss,lr\n0,50,1.2,0.001\n",
        "epoch,step\n0,50\n",
        "epoch,step,loss,lr\n",
        "epoch,step,loss,lr,dice/liver,dice/mean\n0,50,nan,0.1,nan,nan\n1,60,inf,0.1,nan,nan\n",
    ],
)
def test_curves_can_be_drawn_from_the_first_epoch_on(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert len(pixels(tmp_path / "curves.png")) > 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]


def listened(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Fills with the figures that are written."""
    written: list[Figure] = []
    save = Figure.savefig

    def listen(figure: Figure, *args: object, **kwargs: object) -> None:
        save(figure, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        written.append(figure)

    monkeypatch.setattr(Figure, "savefig", listen)
    return written


def ticks(axis: Axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_numbers_at_axes_are_those_that_people_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = listened(monkeypatch)
    rows = [f"{step},{1 / step},{0.008 - step / 1e7}" for step in range(2000, 40001, 2000)]
    (tmp_path / "metrics.csv").write_text("step,loss,lr\n" + "\n".join(rows) + "\n")
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    left, _, rate = figures[0].axes
    assert "20,000" in ticks(left.xaxis)
    assert "0.004" in ticks(rate.yaxis), "no factor at the end of the axis"
    scores = [Score(f"case {number}", "liver", {"dice": 0.9}, 20.0 + number, 25.0) for number in range(5)]  # fmt: skip
    draw_volumes(scores, tmp_path / "volumes.png", UNITS["px2"])
    assert any("," in text for text in ticks(figures[1].axes[0].xaxis))


def test_dice_of_robustness_begins_at_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = listened(monkeypatch)
    dice = {"noise": np.array([[0.91, 0.9, 0.89]])}
    curves = Curves(["ours"], {"noise": [0.1, 0.2]}, dice, UNITS["mm"])
    draw_robustness(curves, tmp_path / "robustness.png")
    assert figures[0].axes[0].get_ylim() == (0, 1.02)
