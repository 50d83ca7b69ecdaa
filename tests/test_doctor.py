"""Twenty broken datasets, each diagnosed; repaired copies; real scans without a finding."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.commands import command
from support.datasets import read_dataset

from segpipe.data.cases import Case
from segpipe.data.doctor import inspect_cases
from segpipe.data.inspected_case import SEVERITY, Finding, InspectedCase
from segpipe.data.inspection import inspect_case
from segpipe.data.repair import write_repaired
from segpipe.errors import ConfigError

LABELS = {"background": 0, "organ": 1}
SHAPE = (10, 12, 8)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def image_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


def label_of(ids: tuple[int, int] = (0, 1)) -> np.ndarray:
    label = np.full(SHAPE, ids[0], np.int16)
    label[3:7, 4:8, 2:6] = ids[1]
    return label


def dataset(root: Path, cases: int = 4) -> Path:
    for number in range(cases):
        save(root / f"images/case{number}.nii.gz", image_of(number))
        save(root / f"labels/case{number}.nii.gz", label_of().astype(np.uint8))
    return root


def affine_of(degrees: float = 0, shift: float = 0, shear: float = 0) -> np.ndarray:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = shift
    affine[0, 1] = shear
    rotation = np.eye(4)
    rotation[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    return rotation @ affine


def cut(root: Path) -> None:
    path = root / "images/case1.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def no_gzip(root: Path) -> None:
    (root / "labels/case1.nii.gz").write_bytes(b"not a scan")


def odd_affine(root: Path) -> None:
    path = root / "images/case1.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[280:292] = np.zeros(3, np.float32).tobytes()  # the first row of the sform
    path.write_bytes(gzip.compress(bytes(raw)))


def image(array: np.ndarray, affine: np.ndarray | None = None) -> Callable[[Path], object]:
    return lambda root: save(root / "images/case1.nii.gz", array, affine)


def label(array: np.ndarray, affine: np.ndarray | None = None) -> Callable[[Path], object]:
    return lambda root: save(root / "labels/case1.nii.gz", array, affine)


def both(affine: np.ndarray) -> Callable[[Path], object]:
    return lambda root: (image(image_of(1), affine)(root), label(label_of(), affine)(root))


def with_three(value: float) -> np.ndarray:
    array = image_of(1)
    array[0, 0, :3] = value
    return array


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated gzip": (cut, "unreadable", "cannot be read as NIfTI"),
    "not a scan": (no_gzip, "unreadable", "10 bytes"),
    "an axis of no length": (odd_affine, "unreadable", "zero or undefined axis"),
    "NaN": (image(with_three(np.nan)), "nan", "3 of 960 voxels are NaN or infinite"),
    "infinite": (image(with_three(np.inf)), "nan", "3 of 960 voxels are NaN or infinite"),
    "constant": (image(np.full(SHAPE, 7, np.int16)), "constant", "every voxel of the image is 7"),
    "empty image": (image(np.zeros(SHAPE, np.int16)), "constant", "every voxel of the image is 0"),
    "another shape": (
        label(label_of()[:-1]),
        "grid",
        "has the shape (9, 12, 8), but case1.nii.gz has (10, 12, 8)",
    ),
    "far away": (
        label(label_of(), affine_of(shift=5)),
        "grid",
        "lies up to 5.00 mm from case1.nii.gz",
    ),
    "a little away": (
        label(label_of(), affine_of(shift=0.2)),
        "affine",
        "lies up to 0.2 mm from its image",
    ),
    "undeclared": (
        label(label_of((0, 3))),
        "values",
        "holds 3 (64 voxels), but the dataset declares only 0 background",
    ),
    "negative": (label(label_of((0, -1))), "values", "holds 64 negative values, down to -1"),
    "fractional": (
        label(label_of() * np.float32(0.5)),
        "values",
        "holds 2 values from 0 to 0.5, which are not label ids",
    ),
    "0 and 255": (label(label_of((0, 255))), "picture", "holds 0 and 255"),
    "an image for a label": (label(image_of(1)), "values", "is it an image?"),
    "nothing labelled": (label(label_of((0, 0))), "unlabelled", "has no labelled voxel"),
    "metres for millimetres": (
        both(np.diag([1e-3, 1e-3, 2e-3, 1.0])),
        "spacing",
        "voxels of 0.001x0.001x0.002 mm",
    ),
    "a tilted gantry": (both(affine_of(shear=0.2)), "shear", "11.3 degrees off right angles"),
    "a time series": (
        image(np.stack([image_of(1)] * 5, -1)),
        "channels",
        "has 5 channels, but most cases have 1",
    ),
    "the same image twice": (image(image_of(0)), "copy", "is the same image as case0.nii.gz"),
}


def findings(root: Path, val: int = 0) -> list[Finding]:
    cases = read_dataset("folder", root).cases
    train = cases[: len(cases) - val]
    inspected = inspect_cases(train, cases[len(train) :], LABELS, None, lambda: None)
    return all_findings(inspected)


def all_findings(cases: Sequence[InspectedCase]) -> list[Finding]:
    return [finding for inspected in cases for finding in inspected.findings]


@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_dataset_is_named_rightly(tmp_path: Path, name: str) -> None:
    spoil, kind, says = BROKEN[name]
    spoil(dataset(tmp_path))
    (found,) = findings(tmp_path)
    assert (found.case, found.kind) == ("case1", kind)
    assert says in found.problem
    assert "case1" in found.problem
    assert "\n" not in found.problem
    assert found.remedy


def test_there_are_twenty_and_every_kind_is_among_them(tmp_path: Path) -> None:
    assert len(BROKEN) == 20
    save(dataset(tmp_path) / "images/case3.nii.gz", image_of(0))
    (leak,) = findings(tmp_path, val=1)
    assert "and one trains while the other validates" in leak.problem
    assert {kind for _, kind, _ in BROKEN.values()} | {
        leak.kind,
        "blank",
        "outlier",  # tests/test_nifti.py
        "survived",
        "rounded",
        "mirrored",
        "name",  # below
        "label",  # tests/test_split_check.py
        "group",
    } == SEVERITY.keys()


def test_one_blank_channel_of_several_stops_nobody(tmp_path: Path) -> None:
    for number in range(2):
        first = save(tmp_path / f"images/case{number}_0000.nii.gz", image_of(number))
        second = save(tmp_path / f"images/case{number}_0001.nii.gz", image_of(9 + number) * number)
        labels = save(tmp_path / f"labels/case{number}.nii.gz", label_of())
        inspected = inspect_case(Case("one", (first, second), labels), LABELS)
        assert inspected.usable
        assert [found.problem for found in inspected.findings] == (
            [] if number else [f"{first}: every voxel of channel 1 is 0"]
        )


def test_what_is_not_wrong_is_not_named(tmp_path: Path) -> None:
    """Affines that differ by rounding, scans stored from left to right or oblique, float labels."""
    dataset(tmp_path)
    label(label_of().astype(np.float32), affine_of(shift=5e-4))(tmp_path)
    flipped = np.diag([-1.0, 1.0, 2.0, 1.0])
    for number, affine in ((2, flipped), (3, affine_of(degrees=20))):
        save(tmp_path / f"images/case{number}.nii.gz", image_of(number), affine)
        save(tmp_path / f"labels/case{number}.nii.gz", label_of(), affine)
    assert findings(tmp_path) == []


def test_several_things_can_be_wrong_with_one_case(tmp_path: Path) -> None:
    label(label_of((0, 255)), affine_of(shift=0.2))(dataset(tmp_path))
    assert [found.kind for found in findings(tmp_path)] == ["affine", "picture"]


def test_declared_channels_are_kept_to(tmp_path: Path) -> None:
    cases = read_dataset("folder", dataset(tmp_path)).cases
    inspected = inspect_cases(cases, [], LABELS, 2, lambda: None)
    assert [finding.kind for finding in all_findings(inspected)] == ["channels"] * 4
    assert "has 1 channels, but the dataset declares 2" in inspected[0].findings[0].problem


def test_a_repaired_copy_has_nothing_wrong(tmp_path: Path) -> None:
    root = dataset(tmp_path / "old", cases=6)
    label(label_of((0, 255)), affine_of(shift=0.2))(root)
    save(root / "labels/case2.nii.gz", label_of().astype(np.float32))
    save(root / "images/case3.nii.gz", image_of(0))
    cut_path = root / "images/case4.nii.gz"
    cut_path.write_bytes(cut_path.read_bytes()[:-200])
    before = {path: path.read_bytes() for path in root.rglob("*.nii.gz")}
    cases = read_dataset("folder", root).cases
    repair = write_repaired(
        inspect_cases(cases, [], LABELS, None, lambda: None), LABELS, tmp_path / "new"
    )
    assert repair.left == {"copy": ["case3"], "unreadable": ["case4"]}
    assert repair.mended == {"affine copied from the image": 1, "255 made the label's id": 1}
    assert findings(tmp_path / "new") == []
    assert {path: path.read_bytes() for path in root.rglob("*.nii.gz")} == before
    for number in (0, 1, 2, 5):
        written: Any = nib.load(tmp_path / f"new/labels/case{number}.nii.gz")
        scan: Any = nib.load(tmp_path / f"new/images/case{number}.nii.gz")
        assert written.get_data_dtype() == np.uint8
        assert np.array_equal(np.asanyarray(written.dataobj), label_of())
        assert np.array_equal(written.affine, scan.affine)
    with pytest.raises(ConfigError, match="is not empty; name a new folder"):
        write_repaired([], LABELS, tmp_path / "new")


def test_what_is_cut_out_of_its_background_is_measured(tmp_path: Path) -> None:
    array = np.zeros((10, 12, 8), np.int16)
    array[2:5, 3:10, 1:7] = 100
    array[3, 4, 2] = 200
    inspected = inspect_case(Case("a", (save(tmp_path / "a.nii", array),), None), LABELS)
    assert inspected.box.tolist() == [3, 7, 6]
    assert inspected.zero_fraction.tolist() == [pytest.approx(1 - 3 * 7 * 6 / 960)]


def test_a_case_that_is_mirrored_among_the_others_is_named(tmp_path: Path) -> None:
    """One of twelve is left-handed: a header that lost a sign mirrors the patient."""
    dataset(tmp_path, cases=12)
    both(np.diag([-1.0, 1.0, 2.0, 1.0]))(tmp_path)
    (found,) = findings(tmp_path)
    assert (found.case, found.kind, found.severity) == ("case1", "mirrored", "warning")
    assert (
        "case1.nii.gz: its axes are left-handed (LAS), but those of 11 of 12 cases are right-handed"
        in found.problem
    )


def test_cases_of_many_scanners_are_not_called_mirrored(tmp_path: Path) -> None:
    dataset(tmp_path, cases=12)
    for number in (1, 2):
        for part, array in (("images", image_of(number)), ("labels", label_of())):
            save(tmp_path / f"{part}/case{number}.nii.gz", array, np.diag([-1.0, 1.0, 2.0, 1.0]))
    assert findings(tmp_path) == []


def test_a_case_without_a_label_is_inspected_too(tmp_path: Path) -> None:
    inspected = inspect_case(
        Case("one", (save(tmp_path / "one.nii.gz", image_of(0)),), None), LABELS
    )
    assert (inspected.usable, inspected.findings, inspected.grid is not None) == (True, [], True)


def test_the_command_lists_what_is_wrong(tmp_path: Path) -> None:
    root = dataset(tmp_path / "scans", cases=5)
    label(label_of((0, 3)))(root)
    save(root / "labels/case2.nii.gz", label_of((0, 0)))
    options = [
        "data=folder",
        "data.root=scans",
        "data.labels={background:0,organ:1}",
        "hydra.run.dir=looked",
    ]
    done = command("train.py", "mode=doctor", "fix=repaired", *options, folder=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert (
        "error: scans/labels/case1.nii.gz: holds 3 (64 voxels), but the dataset declares only"
        in done.stderr
    )
    assert "warning: scans/labels/case2.nii.gz: has no labelled voxel" in done.stdout
    assert "5 cases read; 1 error, 2 warnings" in done.stdout
    assert "left out: 1 case for values: case1" in done.stdout
    with (tmp_path / "looked/doctor.csv").open() as file:
        assert {row["case"]: row["kind"] for row in csv.DictReader(file)} == {
            "case1": "values",
            "case2": "unlabelled",
            "(all cases)": "label",  # the one validation case has none
        }
    again = [option.replace("=scans", "=repaired") for option in options]
    assert command("train.py", "mode=doctor", *again, folder=tmp_path).returncode == 0
    refused = command("train.py", *options, folder=tmp_path)
    assert refused.returncode == 1
    assert (
        "1 of 5 cases cannot be used, such as case1: repair or leave them out (listed above)"
        in refused.stderr
    )


def test_nothing_is_wrong_with_the_hippocampus(real_data: Path) -> None:
    found = read_dataset("decathlon", real_data / "Task04_Hippocampus")
    inspected = inspect_cases(found.cases, [], found.labels, len(found.channels), lambda: None)
    assert len(inspected) == 200
    assert all_findings(inspected) == []
    facts = json.loads((real_data / "Task04_Hippocampus/dataset.json").read_text())
    assert len(facts["training"]) >= 200


def test_the_labelled_voxels_of_many_cases_take_no_more_memory_than_those_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = dataset(tmp_path)
    cases = read_dataset("folder", root).cases
    whole = inspect_cases(cases, [], LABELS, None, lambda: None)
    assert [case.foreground.shape for case in whole] == [(1, 64)] * 4
    monkeypatch.setattr("segpipe.data.doctor.SAMPLES", 4 * 16)
    few = inspect_cases(cases, [], LABELS, None, lambda: None)
    for thinned, case in zip(few, whole, strict=True):
        assert np.array_equal(thinned.foreground, case.foreground[:, ::4])
        assert thinned.foreground.base is None, "what is left out is let go"
