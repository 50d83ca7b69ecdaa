"""Datasets that failed once, from the folder of real scans; and training data of every format."""

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from support.commands import command
from support.config import composed
from support.datasets import read_dataset
from test_doctor import image_of, label_of, save

from segpipe.config.quoting import parse
from segpipe.data.cases import Case, Dataset
from segpipe.data.datasets import open_for_training
from segpipe.data.doctor import inspect_cases
from segpipe.data.inspected_case import InspectedCase
from segpipe.data.inspection import inspect_case
from segpipe.data.repair import write_repaired
from segpipe.doctor import _overrides
from segpipe.planning.fingerprint import label_ids

BRATS = "data.labels={background:0,a:1,b:2,c:3,d:4}"
REGIONS = "data.regions={WT:[1,2,3,4],TC:[1,2,3],ET:[1]}"
TINY = ("model.channels=[4,8]", "plan.batch=1", "plan.patch=[16,16,16]", "trainer.max_steps=2",
        "trainer.steps_per_epoch=2", "trainer.validations=1", "data.workers=0", "logger=tensorboard")  # fmt: skip


@pytest.fixture
def faults(real_data: Path) -> Path:
    return real_data / "faults"


def inspected(dataset: Dataset) -> list[InspectedCase]:
    return inspect_cases(dataset.cases, [], dataset.labels, None, lambda: None)


def kinds(cases: list[InspectedCase]) -> list[str]:
    return [finding.kind for case in cases for finding in case.findings]


def test_numbered_cases_are_cases(faults: Path) -> None:
    dataset = read_dataset("folder", faults / "numbered_cases")
    assert [case.name for case in dataset.cases] == [f"pat_000{number}" for number in range(1, 6)]
    assert kinds(inspected(dataset)) == []


def test_labels_with_a_slope_are_rounded_and_written_so(faults: Path, tmp_path: Path) -> None:
    dataset = read_dataset("folder", faults / "scaled_labels")
    cases = inspected(dataset)
    assert all(case.usable for case in cases)
    labels = label_ids(cases, None)
    assert list(labels.values()) == [0, 1, 2]
    repair = write_repaired(cases, labels, tmp_path / "new")
    assert (len(repair.written), repair.left) == (5, {})
    for path in (tmp_path / "new/labels").iterdir():
        written: Any = nib.load(path)
        assert written.get_data_dtype() == np.uint8
        assert set(np.unique(np.asanyarray(written.dataobj))) == {0, 1, 2}
    assert kinds(inspected(read_dataset("folder", tmp_path / "new"))) == []


@pytest.mark.parametrize("name", ["train_5d", "tiff_stacks_train"])
def test_other_files_train(faults: Path, name: str) -> None:
    cases = inspected(read_dataset("folder", faults / name))
    assert all(case.usable for case in cases), [case.findings for case in cases]
    for case in cases:
        assert case.grid is not None
        assert min(case.grid.shape) > 1


@pytest.mark.slow
def test_the_regions_of_brats_ped_are_learnt(faults: Path, tmp_path: Path) -> None:
    root = f"data.root={faults / 'brats_ped_regions'}"
    done = command("train.py", "data=folder", root, BRATS, REGIONS, *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a mask shows the regions as the ids: WT 4, TC 2, ET 1" in done.stdout


ITK_ENDINGS = (".nrrd", ".mha", ".nhdr", ".mhd", ".nii")


@pytest.mark.parametrize("ending", ITK_ENDINGS)
def test_every_format_that_prediction_reads_also_trains(tmp_path: Path, ending: str) -> None:
    for number in range(2):
        for part, array in (("images", image_of(number)), ("labels", label_of())):
            (tmp_path / part).mkdir(exist_ok=True)
            image = SimpleITK.GetImageFromArray(array.T)
            SimpleITK.WriteImage(image, str(tmp_path / part / f"case{number}{ending}"))
    options, dataset = open_for_training(composed(f"data.root={tmp_path}"))
    assert options.data.layout == "folder"
    assert [case.name for case in dataset.cases] == ["case0", "case1"]
    cases = inspected(dataset)
    assert kinds(cases) == []
    labels = label_ids(cases, None)
    repair = write_repaired(cases, labels, tmp_path / "copy")
    assert repair.written == ["case0", "case1"]
    copied = inspected(read_dataset("folder", tmp_path / "copy"))
    assert kinds(copied) == []
    assert [case.content for case in copied] == [case.content for case in cases]


def test_a_dicom_series_trains_beside_a_nifti_label(real_data: Path, tmp_path: Path) -> None:
    series = real_data / "faults/monochrome1_ct"
    for name in ("ann", "bob_0001"):
        shutil.copytree(series, tmp_path / "images" / name)
    grid = inspect_case(Case("a", (series,), None), None).grid
    assert grid is not None
    label = np.zeros(grid.shape, np.uint8)
    label[2:5, 2:5, 2:5] = 1
    for name in ("ann", "bob_0001"):
        save(tmp_path / f"labels/{name}.nii.gz", label, grid.affine)
    dataset = read_dataset("folder", tmp_path)
    assert [case.images[0].name for case in dataset.cases] == ["ann", "bob_0001"]
    first = inspect_case(dataset.cases[0], None)
    assert first.findings == []
    repair = write_repaired([first], {"background": 0, "a": 1}, tmp_path / "copy")
    assert repair.written == ["ann"]
    copied = inspect_case(read_dataset("folder", tmp_path / "copy").cases[0], None)
    assert (copied.findings, copied.content) == ([], first.content)


def broken_file(path: Path, how: str) -> None:
    path.unlink()
    if how == "loop":
        path.symlink_to(path.name)
    elif how == "nowhere":
        path.symlink_to("/nowhere/at/all")
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "zero":
        path.symlink_to("/dev/zero")
    elif how == "folder":
        path.mkdir()
    elif how == "header":
        path.write_bytes(b"\x00" * 400)


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("how", ["loop", "nowhere", "fifo", "zero", "folder", "header"])
def test_a_broken_file_is_a_finding(tmp_path: Path, part: str, how: str) -> None:
    for number in range(2):
        save(tmp_path / f"images/case{number}.nii.gz", image_of(number))
        save(tmp_path / f"labels/case{number}.nii.gz", label_of())
    broken_file(tmp_path / part / "case1.nii.gz", how)
    dataset = read_dataset("folder", tmp_path)
    with_cache = inspect_cases(
        dataset.cases, [], None, None, lambda: None, cache_folder=tmp_path / "cache"
    )
    for cases in (inspected(dataset), with_cache):
        assert kinds(cases) == ["unreadable"]
        (found,) = cases[1].findings
        assert str(tmp_path / part / "case1.nii.gz") in found.problem
        assert len(found.problem.splitlines()) == 1


@pytest.mark.parametrize("name", ["a\udcffb", "a\nb", "a" * 230, ".hidden", "../up"])
def test_a_case_that_no_file_can_be_named_after_is_a_finding(tmp_path: Path, name: str) -> None:
    image = save(tmp_path / "a.nii.gz", image_of(0))
    found = inspect_case(Case(name, (image,), save(tmp_path / "b.nii.gz", label_of())), None)
    (finding,) = found.findings
    assert (finding.kind, finding.severity) == ("name", "error")
    for text in (finding.case, finding.problem):
        assert len(text.encode()) < 400
        assert len(text.splitlines()) == 1


def test_a_name_that_is_not_utf8_is_isolated(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for number in range(4):
        save(tmp_path / f"images/case{number}.nii.gz", image_of(number))
        save(tmp_path / f"labels/case{number}.nii.gz", label_of())
    for part in (b"images", b"labels"):
        os.rename(root + b"/" + part + b"/case3.nii.gz", root + b"/" + part + b"/c\xff.nii.gz")
    done = command("train.py", "mode=doctor", f"data.root={tmp_path}", "fix=new", "hydra.run.dir=run",
                   folder=tmp_path)  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "the case c\\udcff: its name holds a character that cannot be printed" in done.stderr
    assert "left out: 1 case for name: c\\udcff" in done.stdout
    assert "train on it: python train.py data=folder data.root=new 'data.labels=" in done.stdout
    assert len(list((tmp_path / "new/images").iterdir())) == 3


def test_voxels_that_are_not_numbers_are_filled_in_the_copy(tmp_path: Path) -> None:
    for number in range(4):
        image = image_of(number).astype(np.float32)
        image[:2] = np.nan if number < 2 else 1
        save(tmp_path / f"images/case{number}.nii.gz", image)
        save(tmp_path / f"labels/case{number}.nii.gz", label_of())
    words = ["train.py", "mode=doctor", f"data.root={tmp_path}", "hydra.run.dir=run"]
    done = command(*words, "fix=without", folder=tmp_path)
    assert done.returncode == 3
    assert "left out: 2 cases for nan: case0, case1; add data.nan=fill to fill them" in done.stdout
    done = command(*words, "fix=new", "data.nan=fill", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "filled with their channel's smallest value (2 cases)" in done.stdout
    for file in (tmp_path / "new/images").iterdir():
        assert np.isfinite(nib.load(file).get_fdata()).all()


def test_rounded_labels_of_a_dataset_are_one_line(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"images/case{number}.nii.gz", image_of(number))
        label = label_of() + np.float32(1e-4 * number)
        save(tmp_path / f"labels/case{number}.nii.gz", label)
    done = command("train.py", "mode=doctor", f"data.root={tmp_path}", "fix=new", "hydra.run.dir=run",
                   folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stdout.splitlines() if "whole numbers and were rounded" in line]
    assert len(shown) == 1, shown
    assert "likewise in 2 other cases (doctor.csv)" in shown[0]
    assert "label ids written as whole numbers (3 cases)" in done.stdout


def test_nothing_to_mend_is_said_and_nothing_is_advised(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"images/case{number}.nii.gz", image_of(number))
        save(tmp_path / f"labels/case{number}.nii.gz", label_of().astype(np.float32) * 0.4)
    done = command("train.py", "mode=doctor", f"data.root={tmp_path}", "fix=new", "hydra.run.dir=run",
                   folder=tmp_path)  # fmt: skip
    assert done.returncode == 3
    assert (
        "fix=new: nothing can be mended, and nothing is written: all of 3 cases need" in done.stderr
    )
    assert "train on it" not in done.stdout
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["label 1", "[/b]", "a,b", "x:y", "left=right", "(1)", "a\\b"])
def test_the_line_that_fix_prints_names_the_label(name: str) -> None:
    labels = {"background": 0, name: 1}
    words = _overrides(Path("new"), labels, composed())
    (given,) = [word for word in map(unquoted, words) if word.startswith("data.labels=")]
    assert parse(given).value() == labels


def unquoted(word: str) -> str:
    (text,) = shlex.split(word)
    return text
