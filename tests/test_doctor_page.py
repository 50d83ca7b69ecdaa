"""The doctor's page: worst findings first, pictures up to a number, the plan, and the time of a run."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import Browser
from support.commands import command
from support.config import composed
from support.pages import Reader
from test_doctor import cut, dataset, image_of, label, label_of, save

from segpipe.data.cases import Case, Dataset
from segpipe.data.doctor import inspect_cases
from segpipe.data.inspected_case import InspectedCase
from segpipe.geometry import Grid
from segpipe.outlook import examination
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.rules import make_plan
from segpipe.reporting.doctor_page import Outlook, write_diagnosis
from segpipe.reporting.doctor_pictures import choose_cases, draw_case
from segpipe.reporting.doctor_tables import Examination
from segpipe.text import spoken
from segpipe.training.trial import Trial, forecast

HOSTILE = "<script>alert(1)</script>\"'&"
LABELS = {"background": 0, HOSTILE: 1}
TINY = ["model.channels=[4,8]", "plan.batch=1", "plan.patch=[8,8,8]", "data.cache=cache"]


def seen(name: str, *kinds: str, voxels: int = 10) -> InspectedCase:
    """A case with findings of these kinds, and a label of so many voxels."""
    case = InspectedCase(Case(name, (Path("a.nii"),), None), grid=Grid((9, 9, 9), np.eye(4)))
    case.sizes = np.array([[1, voxels, 1, voxels]])
    for kind in kinds:
        case.add(kind, "a problem", "a remedy")
    return case


def examined(root: Path, val: int = 1) -> Examination:
    names = sorted(path.name.removesuffix(".nii.gz") for path in (root / "images").iterdir())
    cases = []
    for name in names:
        files = [root / part / f"{name}.nii.gz" for part in ("images", "labels")]
        cases.append(Case(name, (files[0],), files[1]))
    read = inspect_cases(cases[val:], cases[:val], LABELS, None, lambda: None)
    parts = {"train": read[:-val], "val": read[-val:], "test": []}
    findings = [finding for case in read for finding in case.findings]
    options = composed(f"data.root={root}")
    return examination(
        Dataset(HOSTILE, tuple(cases), (), LABELS, ("CT",)), parts, findings, options.data
    )


def test_each_kind_of_finding_is_drawn_before_a_second_of_one_kind() -> None:
    cases = [seen(f"rounded{number}", "rounded") for number in range(6)]
    cases += [seen("grid", "grid", "rounded"), seen("copy", "copy")]
    cases += [seen(f"clean{voxels}", voxels=voxels) for voxels in (5, 900, 20, 300, 100)]
    shown = [case.case.name for case in choose_cases(cases, 6)]
    assert shown == ["grid", "rounded0", "rounded1", "copy", "clean5", "clean900"]
    assert len(choose_cases(cases, 100)) == len(cases)
    assert choose_cases(cases, 0) == []


def test_the_page_names_the_worst_first_and_is_nobodys_script(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", cases=6)
    label(label_of((0, 0)))(root)
    save(root / "labels/case2.nii.gz", label_of((0, 3)))
    (root / "images/case1.nii.gz").rename(root / f"images/{HOSTILE[:7]}.nii.gz")
    (root / "labels/case1.nii.gz").rename(root / f"labels/{HOSTILE[:7]}.nii.gz")
    train = "python train.py data=folder"
    write_diagnosis(tmp_path, examined(root), Outlook(problem=HOSTILE), 4, train)
    page = Reader(tmp_path / "doctor.html")
    assert page.problems == []
    assert page.outside == []
    assert all(script["nonce"] for script in page.scripts)
    assert "1 of 6 cases cannot be used, and a training would stop; 1 warning." in page.text
    assert train not in page.text, "a training would stop"
    first, second = [row for row in page.cells if row[1:2] in (["error"], ["warning"])][-2:]
    assert first[:2] == ["case2", "error"]
    assert first[2].startswith("labels/case2.nii.gz: holds 3 (64 voxels)")
    assert second[:2] == [HOSTILE[:7], "warning"]
    pictures = [to for name, to in page.addresses if name == "img" and to]
    assert len(pictures) == 4 + 1, "of four cases, and the plots"
    (organ,) = [row for row in page.cells if row[0] == HOSTILE]
    assert organ[:5] == [HOSTILE, "1", "4", "0", "0.13"], "64 voxels of 2 mm³ in 4 of 6 cases"


def test_a_case_of_colour_or_with_other_ids_is_drawn_and_one_that_is_damaged_is_not(
    tmp_path: Path,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30] = 7
    Image.fromarray(mask).save(tmp_path / "b.png")
    colour = Case("colour", (tmp_path / "a.png",), tmp_path / "b.png")
    pictures = [tmp_path / f"{name}.picture.png" for name in ("with", "without", "damaged")]
    assert draw_case(InspectedCase(colour), LABELS, pictures[0], "px2")
    Image.fromarray(0 * mask).save(tmp_path / "b.png")
    assert draw_case(InspectedCase(colour), LABELS, pictures[1], "px2")
    shown, bare = (np.asarray(Image.open(file).convert("RGB"), int) for file in pictures[:2])
    assert np.ptp(shown, axis=2).max() > 50, "the undeclared id 7 in its colour"
    assert np.ptp(bare, axis=2).max() < 10
    cut(dataset(tmp_path))
    files = [tmp_path / part / "case1.nii.gz" for part in ("images", "labels")]
    damaged = InspectedCase(Case("damaged", (files[0],), files[1]))
    assert not draw_case(damaged, LABELS, pictures[2], "mm")
    assert not pictures[2].exists()


def test_the_time_of_a_run_is_that_of_its_steps_validations_and_preparation() -> None:
    options = composed("plan.patch=[8,8,8]", "plan.spacing=[1,1,1]", "plan.batch=2", "trainer.max_steps=100",
                       "trainer.validations=5")  # fmt: skip
    ones = np.ones((1, 3))
    common = Fingerprint(ones, 16 * ones, 16 * ones, [0.0], [(0.0, 1.0, 0.5, 0.2)], {})
    plan = make_plan(options, common, ["CT"], LABELS, "cpu")
    grids = [Grid((16, 8, 8), np.eye(4))] * 10  # three windows each, by half a window
    trial = Trial(step_s=2.0, window_s=0.5, prepare_s=1.0)
    ahead = forecast(trial, plan, options, 40, grids)
    assert ahead.steps == 100
    assert ahead.patches == 5
    assert ahead.validation_s == 10 * (3 * 0.5 + 1)
    assert ahead.total_s == 100 * 2 + 5 * 25 + 40 + 25
    timed = composed(*["plan.patch=[8,8,8]", "trainer.max_time=00:10:00", "trainer.validations=4"])
    assert forecast(trial, plan, timed, 40, grids).steps == (600 - 4 * 25) / 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, "less than 1 s"),
        (59.0, "59 s"),
        (90.0, "2 min"),
        (11400.0, "3 h 10 min"),
        (93600.0, "1 day 2 h"),
    ],
)
def test_spans_of_time_as_people_say_them(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_the_command_plans_and_measures_a_training(tmp_path: Path, opened: Browser) -> None:
    dataset(tmp_path / "data", cases=6)
    for number in range(6):
        save(tmp_path / f"data/images/case{number}.nii.gz", image_of(number))
    words = [
        "mode=doctor",
        "data.root=data",
        "page.cases=3",
        "hydra.run.dir=run",
        "trainer.max_steps=40",
    ]
    done = command("train.py", *words, *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    page = Reader(tmp_path / "run/doctor.html")
    assert "All 6 cases are usable; no problems found." in page.text
    assert "python train.py data.root=data page.cases=3 trainer.max_steps=40" in page.text
    assert ["patch 8x8x8", "given"] in [row[:2] for row in page.cells], page.cells
    assert "40, with about 8 patches of each training case" in page.text
    assert "s a step: a run would take about" in done.stdout
    assert len(list((tmp_path / "run/overlays").iterdir())) == 3
    for width in (1400, 390):
        opened.show(tmp_path / "run/doctor.html", width)
        assert opened.ask("document.documentElement.scrollWidth <= innerWidth")
    assert opened.complaints == []
    assert opened.left(tmp_path) == []


def test_without_a_case_that_can_be_used_there_is_no_plan_but_a_page(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"data/images/case{number}.nii.gz", image_of(number))
        save(tmp_path / f"data/labels/case{number}.nii.gz", label_of().astype(np.float32) * 0.4)
    done = command(
        "train.py", "mode=doctor", "data.root=data", "hydra.run.dir=run", folder=tmp_path
    )
    assert done.returncode == 3, done.stderr
    page = Reader(tmp_path / "run/doctor.html")
    assert page.problems == []
    assert "There is no plan: no case that could train can be used." in page.text
    with (tmp_path / "run/doctor.csv").open() as opened:
        assert len(list(csv.DictReader(opened))) == 3
