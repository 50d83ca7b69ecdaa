"""Datasets as they lie on disk, whole and broken."""

import json
from pathlib import Path

import pytest

from segpipe.data.layouts import read_dataset
from segpipe.errors import ConfigError, DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def decathlon(root: Path, **changes: object) -> Path:
    touch(root, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "imagesTs/c.nii.gz")
    facts = {
        "name": "Heart",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "2": "wall", "1": "atrium"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ba"],
        "test": ["./imagesTs/c.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(facts | changes))
    return root


def nnunet(root: Path, **changes: object) -> Path:
    touch(
        root, *[f"imagesTr/{n}_000{c}.nii.gz" for n in "ab" for c in (0, 1)], "labelsTr/a.nii.gz", "labelsTr/b.nii.gz"
    )
    facts = {
        "channel_names": {"1": "T1w", "0": "FLAIR"},
        "labels": {"background": 0, "edema": 1, "tumour": 4},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(facts | changes))
    return root


def test_decathlon(tmp_path: Path) -> None:
    dataset = read_dataset("decathlon", decathlon(tmp_path))
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].images == (tmp_path / "imagesTr/a.nii.gz",)
    assert dataset.labels == {"background": 0, "atrium": 1, "wall": 2}
    assert dataset.channels == ("CT",)
    assert [(case.name, case.label) for case in dataset.test] == [("c", None)]


def test_a_decathlon_test_part_finds_its_labels(tmp_path: Path) -> None:
    touch(decathlon(tmp_path), "labelsTs/c.nii.gz")
    assert read_dataset("decathlon", tmp_path).test[0].label == tmp_path / "labelsTs/c.nii.gz"


def test_nnunet_orders_channels_by_number(tmp_path: Path) -> None:
    dataset = read_dataset("nnunet", nnunet(tmp_path))
    assert dataset.channels == ("FLAIR", "T1w")
    assert [path.name for path in dataset.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert dataset.labels == {"background": 0, "edema": 1, "tumour": 4}


def test_folder_matches_names_whatever_the_endings(tmp_path: Path) -> None:
    touch(tmp_path, "images/x.nii.gz", "labels/x.nii", "images/y.PNG", "labels/y_mask.png")
    dataset = read_dataset("folder", tmp_path)
    found = [(case.name, case.images[0].name, case.label and case.label.name) for case in dataset.cases]
    assert found == [("x", "x.nii.gz", "x.nii"), ("y", "y.PNG", "y_mask.png")]
    assert dataset.labels is None


def test_folder_groups_channels(tmp_path: Path) -> None:
    touch(tmp_path, "images/x_0001.nii", "images/x_0000.nii", "labels/x.nii")
    assert [path.name for path in read_dataset("folder", tmp_path).cases[0].images] == ["x_0000.nii", "x_0001.nii"]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_table(tmp_path: Path, delimiter: str) -> None:
    touch(tmp_path, "t1.nii", "t2.nii", "a.nii", "b.nii", "b1.nii")
    rows = [
        ("case", "image", "label", "split", "group"),
        ("A", "t1.nii;t2.nii", "a.nii", "train", "p1"),
        ("B", "b1.nii", "b.nii", "val", "p2"),
    ]
    (tmp_path / "cases.csv").write_text("\n".join(delimiter.join(row) for row in rows))
    for root in (tmp_path, tmp_path / "cases.csv"):
        first, second = read_dataset("table", root).cases
        assert (first.name, first.group, first.split, len(first.images)) == ("A", "p1", "train", 2)
        assert (second.name, second.label) == ("B", tmp_path / "b.nii")


def test_json_table(tmp_path: Path) -> None:
    touch(tmp_path, "t1.nii", "t2.nii", "a.nii")
    (tmp_path / "cases.json").write_text(json.dumps([{"image": ["t1.nii", "t2.nii"], "label": "a.nii"}]))
    assert read_dataset("table", tmp_path).cases[0].images == (tmp_path / "t1.nii", tmp_path / "t2.nii")


def test_declared_labels_replace_the_datasets(tmp_path: Path) -> None:
    declared = {"all": 3, "nothing": 0}
    assert read_dataset("decathlon", decathlon(tmp_path), declared=declared).labels == {"nothing": 0, "all": 3}


def broken(root: Path, how: str) -> tuple[str, Path]:
    """A dataset that is broken in one way, and its layout."""
    if how == "missing file":
        (decathlon(root) / "labelsTr/b.nii.gz").unlink()
    elif how == "two backgrounds":
        decathlon(root, labels={"0": "background", "1": "background"})
    elif how == "no background":
        decathlon(root, labels={"1": "atrium", "2": "wall"})
    elif how == "not json":
        (decathlon(root) / "dataset.json").write_text("{")
    elif how == "odd labels":
        decathlon(root, labels=["background"])
    elif how == "wrong layout":
        nnunet(root)
    elif how == "channel":
        (nnunet(root) / "imagesTr/b_0001.nii.gz").unlink()
        return "nnunet", root
    elif how == "region":
        return "nnunet", nnunet(root, labels={"background": 0, "whole": [1, 2]})
    elif how == "ignore":
        return "nnunet", nnunet(root, labels={"background": 0, "edema": 1, "ignore": 2})
    elif how == "unmatched":
        return "folder", touch(root, "images/scan1.nii", "images/scan2.nii", "labels/scan1.nii", "labels/scan_2.nii")
    elif how == "left over":
        return "folder", touch(root, "images/scan1.nii", "labels/scan1.nii", "labels/scan3.nii")
    elif how == "no folder":
        return "folder", touch(root, "image/a.nii", "labels/a.nii")
    elif how == "no images":
        return "folder", touch(root, "images/notes.txt", "labels/a.nii")
    elif how == "column":
        touch(root, "a.nii", "b.nii")
        (root / "t.csv").write_text("case,images,label\nA,a.nii,b.nii\n")
        return "table", root
    elif how == "row":
        touch(root, "a.nii")
        (root / "t.csv").write_text("case,image,label\nA,a.nii,\n")
        return "table", root
    elif how == "split":
        touch(root, "a.nii", "b.nii")
        (root / "t.csv").write_text("case,image,label,split\nA,a.nii,b.nii,test\n")
        return "table", root
    elif how == "twice":
        touch(root, "a.nii", "b.nii", "c.nii")
        (root / "t.csv").write_text("case,image,label\nA,a.nii,b.nii\nA,c.nii,b.nii\n")
        return "table", root
    elif how == "two tables":
        return "table", touch(root, "a.csv", "b.csv")
    return "decathlon", root


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("missing file", DataError, "dataset.json: 1 of 4 named files are not there, as "),
        ("two backgrounds", DataError, "two labels share a name"),
        ("no background", DataError, "have no background; one of them must have the id 0"),
        ("not json", DataError, "dataset.json: cannot be read as JSON"),
        ("odd labels", DataError, "is not as the Decathlon writes it"),
        ("wrong layout", ConfigError, "has no 'modality', so it is not data=decathlon; this looks like data=nnunet"),
        ("channel", DataError, "case b lacks b_0001.nii.gz of 2 channels"),
        ("region", DataError, "label whole is a region"),
        ("ignore", DataError, "an ignore label (2) is not supported"),
        ("unmatched", DataError, "1 of 2 images have no label of their name"),
        ("unmatched", DataError, "as scan2; closest: scan_2, scan1"),
        ("left over", DataError, "1 of 2 labels have no image of their name"),
        ("no folder", ConfigError, "has no folder images; closest: image"),
        ("no images", ConfigError, "no file matches *.nii.gz, *.nii, *.png"),
        ("no images", ConfigError, "there are 1 other entries, as notes.txt"),
        ("column", DataError, "has a column images; did you mean image?"),
        ("row", DataError, "row 2 has no label"),
        ("split", DataError, "row 2 has the split 'test'; it must be train, val or empty"),
        ("twice", DataError, "the case name A stands 2 times"),
        ("two tables", ConfigError, "holds 2 tables"),
    ],
)
def test_a_broken_dataset_is_named_in_one_line(tmp_path: Path, how: str, kind: type[Exception], says: str) -> None:
    layout, root = broken(tmp_path, how)
    with pytest.raises(kind) as caught:
        read_dataset(layout, root)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_root_names_its_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "Task04_Hippocampus/dataset.json")
    with pytest.raises(ConfigError, match="no such folder; closest: Task04_Hippocampus"):
        read_dataset("decathlon", tmp_path / "Task4_Hippocampus")


def test_another_layout_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="has no dataset.json, so it is not data=decathlon; this looks like data=folder"
    ):
        read_dataset("decathlon", touch(tmp_path, "images/a.nii", "labels/a.nii"))


def test_real_datasets(real_data: Path) -> None:
    hippocampus = read_dataset("decathlon", real_data / "Task04_Hippocampus")
    assert len(hippocampus.cases) == 200
    assert hippocampus.labels == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert len(read_dataset("folder", real_data / "nuclei").cases) == 200
    assert [case.name for case in read_dataset("folder", real_data / "spinal_cord").cases] == ["t1", "t2"]
