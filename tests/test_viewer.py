"""The viewer in pages: what is inside, no more than is stated, and what a browser makes of it."""

import base64
import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.browser import Browser
from support.pages import Reader
from support.predictions import done, draw, options
from support.run_folders import done as done_run

from segpipe.reporting.prediction_page import write_index
from segpipe.reporting.run_page import write_report
from segpipe.reporting.viewer import ViewerBudget, ViewerCase, make_viewer, viewer_case

AFFINE = np.array([[-1.5, 0, 0, 20], [0, 1, 0, -30], [0, 0, 3, 0], [0, 0, 0, 1.0]])
LIVER, VESSEL = (230, 159, 0), (86, 180, 233)


def volumes(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright ball with two labels in it, and a truth that lacks a part of them."""
    place = np.indices((40, 36, 20)).reshape(3, -1).T - (20, 18, 10)
    far = np.linalg.norm(place / (1, 1, 0.5), axis=1).reshape(40, 36, 20)
    image = 100.0 * (far < 17) + np.random.default_rng(seed).normal(0, 3, far.shape)
    labels = (far < 12).astype(np.uint8) + (far < 5)
    return (
        image,
        labels.astype(np.uint8),
        np.where(np.arange(40)[:, None, None] < 22, labels, 0).astype(np.uint8),
    )


def case(name: str, seed: int = 0) -> ViewerCase:
    made = viewer_case(name, *volumes(seed), AFFINE)
    assert made is not None
    return made


def test_a_volume_is_inside_as_it_is(tmp_path: Path) -> None:
    image, labels, truth = volumes()
    made = case("a")
    for packed, expected in ((made.prediction, labels), (made.truth, truth)):
        assert packed is not None
        voxels = np.frombuffer(gzip.decompress(base64.b64decode(packed)), np.uint8)
        assert np.array_equal(voxels.reshape(made.shape, order="F"), expected)
    grey = np.frombuffer(gzip.decompress(base64.b64decode(made.scan)), np.uint8).reshape(
        made.shape, order="F"
    )
    assert np.corrcoef(grey.ravel(), image.ravel())[0, 1] > 0.99
    assert made.affine == AFFINE.ravel().tolist()
    assert viewer_case("flat", image[..., :1], labels[..., :1], None, AFFINE) is None, (
        "a picture cannot be turned"
    )


def test_beyond_the_limit_the_best_are_left_out_and_named() -> None:
    one = case("one")
    budget = ViewerBudget(2.5 * one.size / 2**20)
    for name, rank in (("good", 0.9), ("nothing", float("nan")), ("bad", 0.1), ("fair", 0.5)):
        budget.add(rank, replace(one, name=name))
    viewer = make_viewer(budget, ["liver", "vessel"])
    assert viewer is not None
    assert [one.name for one in viewer.cases] == ["bad", "fair"]
    assert "without room: good, nothing." in viewer.note
    assert viewer.colours == [LIVER, VESSEL]
    assert make_viewer(ViewerBudget(1.0), ["liver"]) is None


def test_the_page_of_predictions_takes_what_is_there_as_files(tmp_path: Path) -> None:
    """With the ids on disk; a scan that is gone, or a mask of an earlier version, is left out."""
    image, labels, truth = volumes()
    (tmp_path / "scans").mkdir()
    (tmp_path / "truth").mkdir()
    draw(tmp_path, "a")
    for path, volume in (
        ("scans/a", image),
        ("a", 9 * (labels == 1).astype(np.uint8)),
        ("truth/a", 9 * (truth == 1).astype(np.uint8)),
    ):
        nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / f"{path}.nii.gz")
    here = replace(done("a", 0.8), ids=[9], images=[str(tmp_path / "scans/a.nii.gz")],
                   truth=str(tmp_path / "truth/a.nii.gz"))  # fmt: skip
    gone = replace(done("gone"), ids=[9])
    asked = options(tmp_path)
    asked = asked.model_copy(
        update={"page": asked.page.model_copy(update={"viewer": True}), "truth": tmp_path / "truth"}
    )
    write_index(tmp_path, [here, gone, done("earlier")], 3, asked)
    page = Reader(tmp_path / "index.html")
    assert page.problems == []
    assert "1 case, " in page.text
    assert len(page.scripts) == 1 + 4
    assert '"truth": "' in (tmp_path / "index.html").read_text(encoding="utf-8")
    asked = asked.model_copy(update={"page": asked.page.model_copy(update={"viewer_mib": 0.001})})
    write_index(tmp_path, [here], 1, asked)
    page = Reader(tmp_path / "index.html")
    assert (
        "0 cases, 0.0 MiB of at most 0.001 (page.viewer_mib), the worst first; without room: a."
        in page.text
    )
    assert len(page.scripts) == 1, "without a volume there is no viewer"
    assert (tmp_path / "index.html").stat().st_size < 500_000


def share(picture: np.ndarray, towards: tuple[int, int, int]) -> float:
    """The share of pixels whose hue is that of a label over grey anatomy."""
    pixels = picture.reshape(-1, 3).astype(float)
    colour = np.array(towards, float)
    pixels, colour = pixels - pixels.mean(1, keepdims=True), colour - colour.mean()
    strong = np.linalg.norm(pixels, axis=1) > 40
    return float(
        (
            strong
            & (pixels @ colour > 0.97 * np.linalg.norm(pixels, axis=1) * np.linalg.norm(colour))
        ).mean()
    )


def chosen(opened: Browser, menu: str, value: str, shown: str) -> np.ndarray:
    """What the viewer shows after a choice in one of its menus."""
    opened.ask(
        f"(() => {{ const menu = document.getElementById('turn-{menu}'); menu.value = {value!r}; menu.dispatchEvent(new Event('change')); }})()"
    )
    opened.wait(f"document.getElementById('turn').dataset.shown === {shown!r}")
    return opened.screenshot("#turn")


@pytest.mark.slow
def test_a_browser_shows_masks_sorts_tables_and_asks_nobody(
    opened: Browser, tmp_path: Path
) -> None:
    folder = done_run(tmp_path / "run")
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(folder / "network.png")
    budget = ViewerBudget(8.0)
    budget.add(0.1, case("hard"))
    budget.add(0.5, case("easy", 1))
    write_report(folder, viewer=budget)
    opened.show(folder / "report.html")
    first = "[...document.querySelectorAll('#scores + .scroll tbody tr')].map(row => row.cells[1].textContent + row.cells[2].textContent).slice(0, 2).join()"
    assert opened.ask(first) == "vessel0.100,liver0.700"
    opened.ask("document.querySelectorAll('#scores + .scroll th button')[2].click()")
    assert opened.ask(first) == "liver0.950,vessel0.900"
    opened.ask("document.getElementById('turn-start').click()")
    opened.wait("document.getElementById('turn').dataset.shown === 'hard,prediction'")
    seen = opened.screenshot("#turn")
    assert share(seen, LIVER) > 0.02
    assert share(seen, VESSEL) > 0.002
    truth = chosen(opened, "mask", "truth", "hard,truth")
    assert 0.3 * share(seen, LIVER) < share(truth, LIVER) < 0.9 * share(seen, LIVER), (
        "the truth lacks nearly half"
    )
    assert share(chosen(opened, "mask", "none", "hard,none"), LIVER) == 0
    assert share(chosen(opened, "mask", "differ", "hard,differ"), LIVER) > 0.01
    assert share(chosen(opened, "case", "1", "easy,differ"), LIVER) > 0.01
    assert share(chosen(opened, "view", "4", "easy,differ"), LIVER) > 0.001
    assert opened.complaints == []
    assert opened.left(folder) == []
