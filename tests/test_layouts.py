"""Datasets as they lie on disk, whole and broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.config import composed
from support.datasets import read_dataset

from segpipe.config.data import Data
from segpipe.data.cases import Case, Dataset
from segpipe.data.datasets import open_dataset
from segpipe.data.layouts.base import Layout, root_folder
from segpipe.errors import ConfigError, DataError, SegpipeError
from segpipe.io.formats import ENDINGS
from segpipe.registry import LAYOUTS


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def decathlon(root: Path, **changes: object) -> Path:
    touch(
        root,
        "imagesTr/a.nii.gz",
        "imagesTr/b.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/b.nii.gz",
        "imagesTs/c.nii.gz",
    )
    facts = {
        "name": "Heart",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "2": "wall", "1": "atrium"},
        "training": [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ba"
        ],
        "test": ["./imagesTs/c.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(facts | changes))
    return root


def nnunet(root: Path, **changes: object) -> Path:
    touch(
        root,
        *[f"imagesTr/{n}_000{c}.nii.gz" for n in "ab" for c in (0, 1)],
        "labelsTr/a.nii.gz",
        "labelsTr/b.nii.gz",
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
    found = [
        (case.name, case.images[0].name, case.label and case.label.name) for case in dataset.cases
    ]
    assert found == [("x", "x.nii.gz", "x.nii"), ("y", "y.PNG", "y_mask.png")]
    assert dataset.labels is None


def test_folder_groups_channels(tmp_path: Path) -> None:
    touch(tmp_path, "images/x_0001.nii", "images/x_0000.nii", "labels/x.nii")
    assert [path.name for path in read_dataset("folder", tmp_path).cases[0].images] == [
        "x_0000.nii",
        "x_0001.nii",
    ]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_table(tmp_path: Path, delimiter: str) -> None:
    touch(tmp_path, "t1.nii", "t2.nii", "a.nii", "b.nii", "b1.nii", "b2.nii", "c1.nii", "c2.nii")
    rows = [
        ("case", "image", "label", "split", "group"),
        ("A", "t1.nii;t2.nii", "a.nii", "train", "p1"),
        ("B", "b1.nii;b2.nii", "b.nii", "val", "p2"),
        ("C", "c1.nii;c2.nii", "", "test", "p3"),
    ]
    (tmp_path / "cases.csv").write_text("\n".join(delimiter.join(row) for row in rows))
    for root in (tmp_path, tmp_path / "cases.csv"):
        dataset = read_dataset("table", root)
        first, second = dataset.cases
        assert (first.name, first.group, first.split, len(first.images)) == ("A", "p1", "train", 2)
        assert (second.name, second.label) == ("B", tmp_path / "b.nii")
        assert [(case.name, case.label) for case in dataset.test] == [("C", None)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"case,image,label\n\x81,a.nii,b.nii\n", "is not a text file"),
        (
            "t.csv",
            b"case,image,label\nA,a.nii,b.nii,more\n",
            "row 2 does not have the 3 fields of the header",
        ),
        ("t.csv", b"case,image,label\nA,a.nii\n", "row 2 does not have the 3 fields of the header"),
        ("t.csv", b"", "has no rows"),
        (
            "t.csv",
            b"case,image,label,split\nA,a.nii,b.nii,test\n",
            "all 1 rows have the split test",
        ),
        ("t.csv", b"case,image,label\nA,a.nii;c.nii,b.nii\nB,d.nii,b.nii\n", "1 in B, 2 in A"),
        ("t.json", b'{"image": "a.nii"}', "must be a list of objects"),
        ("t.json", b'[{"image": 3, "label": "b.nii"}]', "image and label must be file names"),
        (
            "t.json",
            b'[{"image": ["a.nii", 1], "label": "b.nii"}]',
            "image and label must be file names",
        ),
        (
            "t.json",
            b'[{"image": "a.nii", "label": ["b.nii"]}]',
            "image and label must be file names",
        ),
    ],
)
def test_a_broken_table_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (touch(tmp_path, "a.nii", "b.nii", "c.nii", "d.nii") / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_dataset("table", tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_table(tmp_path: Path) -> None:
    touch(tmp_path, "t1.nii", "t2.nii", "a.nii")
    (tmp_path / "cases.json").write_text(
        json.dumps([{"image": ["t1.nii", "t2.nii"], "label": "a.nii"}])
    )
    assert read_dataset("table", tmp_path).cases[0].images == (
        tmp_path / "t1.nii",
        tmp_path / "t2.nii",
    )


def test_declared_labels_replace_the_datasets(tmp_path: Path) -> None:
    declared = {"all": 3, "nothing": 0}
    assert read_dataset("decathlon", decathlon(tmp_path), labels=declared).labels == {
        "nothing": 0,
        "all": 3,
    }


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
    elif how == "unmatched":
        return "folder", touch(
            root, "images/scan1.nii", "images/scan2.nii", "labels/scan1.nii", "labels/scan_2.nii"
        )
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
        (root / "t.csv").write_text("case,image,label,split\nA,a.nii,b.nii,tset\n")
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
        ("missing file", DataError, "dataset.json: 1 of 4 named files do not exist, such as "),
        (
            "two backgrounds",
            DataError,
            "two labels share a name in {'0': 'background', '1': 'background'}",
        ),
        (
            "no background",
            DataError,
            "{'atrium': 1, 'wall': 2} must include a background with id 0",
        ),
        ("not json", DataError, "dataset.json: cannot be read as JSON"),
        (
            "odd labels",
            DataError,
            "'labels' must look like {\"0\": \"background\", ...}, got ['background']",
        ),
        (
            "wrong layout",
            ConfigError,
            "has no 'modality', so it is not data=decathlon; this looks like data=nnunet",
        ),
        (
            "channel",
            DataError,
            "case b lacks _0001: here a case has _0000, _0001; found b_0000.nii.gz",
        ),
        ("unmatched", DataError, "1 of 2 images have no label of their name"),
        ("unmatched", DataError, "such as scan2.nii; closest: scan_2, scan1"),
        ("left over", DataError, "1 of 2 labels have no image of their name"),
        ("no folder", ConfigError, "has no folder images; closest: image"),
        ("no images", ConfigError, "no file matches *.nii.gz, *.nii"),
        ("no images", ConfigError, "; found notes.txt"),
        ("column", DataError, "has a column images; did you mean image?"),
        ("row", DataError, "row 2 has no label"),
        ("split", DataError, "row 2 has the split 'tset'; it must be train, val, test or empty"),
        ("twice", DataError, "the case name A occurs 2 times"),
        ("two tables", ConfigError, "holds 2 tables"),
    ],
)
def test_a_broken_dataset_is_named_in_one_line(
    tmp_path: Path, how: str, kind: type[Exception], says: str
) -> None:
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
        ConfigError,
        match="has no dataset.json, so it is not data=decathlon; this looks like data=folder",
    ):
        read_dataset("decathlon", touch(tmp_path, "images/a.nii", "labels/a.nii"))


def refusal(layout: Any, root: Path, **options: Any) -> str:
    """What a dataset is refused with, the temporary folder cut out of it."""
    with pytest.raises(SegpipeError) as caught:
        read_dataset(layout, root, **options)
    return str(caught.value).replace(str(root), "DIR")


def test_a_training_case_needs_a_label_and_never_takes_a_test_one(tmp_path: Path) -> None:
    touch(decathlon(tmp_path, training=[{"image": "imagesTr/a.nii.gz"}]), "labelsTs/a.nii.gz")
    assert refusal("decathlon", tmp_path) == (
        "DIR/dataset.json: each case of 'training' must name an image and a label, got {'image': 'imagesTr/a.nii.gz'}"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"training": []},
            "DIR/dataset.json: 'training' lists no case; each is an object with image and label",
        ),
        ({"training": 3}, "DIR/dataset.json: 'training' must be a list of cases, got 3"),
        ({"test": [7]}, "DIR/dataset.json: each case of 'test' must name an image, got 7"),
        (
            {"test": ["imagesTs/z.nii.gz"]},
            "DIR/dataset.json: 1 of 1 named files do not exist, such as DIR/imagesTs/z.nii.gz",
        ),
        (
            {"test": ["imagesTs/c.nii.gz"] * 2},
            "DIR: the test case name c occurs 2 times; it must occur once",
        ),
        (
            {"test": ["imagesTr/a.nii.gz"]},
            "DIR: the image DIR/imagesTr/a.nii.gz occurs 2 times; it must occur once",
        ),
        (
            {"modality": ["CT"]},
            "DIR/dataset.json: 'modality' must look like {\"0\": \"MRI\", ...}, got ['CT']",
        ),
    ],
)
def test_a_broken_decathlon(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    assert refusal("decathlon", decathlon(tmp_path, **changes)) == says


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": None}, '\'labels\' must look like {"background": 0, "edema": 1,'),
        (
            {"labels": {"background": 0, "a": "x"}},
            "\"ignore\": 3}, got {'a': 'x',",
        ),
        (
            {"channel_names": ["T1"]},
            "'channel_names' must look like {\"0\": \"T1\", ...}, got ['T1']",
        ),
        (
            {"file_ending": ".mha"},
            "no file matches imagesTr/*_0000.mha; found a_0000.nii.gz, a_0001.nii.gz,",
        ),
    ],
)
def test_a_broken_nnunet(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    assert says in refusal("nnunet", nnunet(tmp_path, **changes))


def test_nnunet_drops_no_case_whose_first_channel_is_missing(tmp_path: Path) -> None:
    (nnunet(tmp_path) / "imagesTr/b_0000.nii.gz").unlink()
    assert refusal("nnunet", tmp_path) == (
        "DIR/imagesTr: case b lacks _0000: here a case has _0000, _0001; found b_0001.nii.gz"
    )


def test_nnunet_refuses_a_channel_too_many(tmp_path: Path) -> None:
    touch(nnunet(tmp_path), "imagesTr/b_0002.nii.gz")
    assert "case b has too many channels: here a case has _0000, _0001" in refusal(
        "nnunet", tmp_path
    )


def test_nnunet_refuses_a_label_without_an_image(tmp_path: Path) -> None:
    touch(nnunet(tmp_path), "labelsTr/c.nii.gz")
    assert (
        refusal("nnunet", tmp_path)
        == "DIR/labelsTr: 1 label map without an image in imagesTr, such as c.nii.gz"
    )


def test_nnunet_test_part_and_hidden_files(tmp_path: Path) -> None:
    touch(nnunet(tmp_path), "imagesTs/t_0000.nii.gz", "imagesTs/t_0001.nii.gz", "labelsTs/t.nii.gz")
    touch(tmp_path, "imagesTr/._a_0000.nii.gz", "labelsTr/._a.nii.gz")
    dataset = read_dataset("nnunet", tmp_path)
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [(case.name, len(case.images), case.label) for case in dataset.test] == [
        ("t", 2, tmp_path / "labelsTs/t.nii.gz")
    ]


def test_nnunet_takes_one_png_for_red_green_and_blue(tmp_path: Path) -> None:
    nnunet(tmp_path, file_ending=".png", channel_names={"0": "R", "1": "G", "2": "B"})
    touch(tmp_path, "imagesTr/p_0000.png", "labelsTr/p.png")
    assert read_dataset("nnunet", tmp_path).cases[0].images == (tmp_path / "imagesTr/p_0000.png",)


def test_declared_labels_stand_in_for_regions(tmp_path: Path) -> None:
    nnunet(tmp_path, labels={"background": 0, "whole": [1, 2]})
    declared = {"background": 0, "edema": 1, "core": 2}
    assert read_dataset("nnunet", tmp_path, labels=declared).labels == declared


def test_declared_labels_need_a_background(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="data.labels: the labels {'a': 1} must include a background with id 0"
    ):
        read_dataset("decathlon", decathlon(tmp_path), labels={"a": 1})


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            "images/x.nii images/x.png labels/x.nii",
            "DIR/images: x.nii and x.png have the same name, x; keep one",
        ),
        (
            "images/x.nii labels/x.nii labels/x.png",
            "DIR/labels: x.nii and x.png have the same name, x; keep one",
        ),
        (
            "images/x.nii labels/x.nii labels/x_seg.nii",
            "DIR/labels: 1 of 2 labels have no image of their name in DIR/images, such as x_seg.nii",
        ),
        (
            "images/x_0000.nii images/x_0001.nii labels/x.nii images/y_0000.nii labels/y.nii",
            "DIR/images: case y lacks _0001: here a case has _0000, _0001; found y_0000.nii",
        ),
        (
            "images/x_0000.nii images/x_0002.nii labels/x.nii",
            "DIR/images: case x lacks _0001: here a case has _0000, _0001; found x_0000.nii, x_0002.nii",
        ),
        (
            "images/img_0001.png images/img_0002.png images/img_0003.png labels/img_0001.png labels/img_0003.png",
            "DIR/images: 1 of 3 images have no label of their name in DIR/labels, such as img_0002.png; "
            "closest: img_0003, img_0001",
        ),
        (
            "images/x.nii labels/x.nii test/labels/t.nii",
            f"DIR/test/images: no file matches *{', *'.join(ENDINGS)}; the folder is empty or missing",
        ),
    ],
)
def test_a_broken_folder(tmp_path: Path, names: str, says: str) -> None:
    assert refusal("folder", touch(tmp_path, *names.split())) == says


def test_numbered_cases_are_not_channels(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/img_0000.png",
        "images/img_0001.png",
        "labels/img_0000.png",
        "labels/img_0001_mask.png",
    )
    touch(tmp_path, "test/images/img_0000.png", "test/images/img_0001.png")
    dataset = read_dataset("folder", tmp_path)
    assert [case.name for case in dataset.cases] == ["img_0000", "img_0001"]
    assert [(case.name, case.label) for case in dataset.test] == [
        ("img_0000", None),
        ("img_0001", None),
    ]


def test_a_folders_test_part_has_the_channels_of_its_training_part(tmp_path: Path) -> None:
    touch(tmp_path, "images/x_0000.nii", "images/x_0001.nii", "labels/x.nii")
    touch(tmp_path, "test/images/t_0000.nii", "test/images/t_0001.nii")
    (unlabelled,) = read_dataset("folder", tmp_path).test
    assert (unlabelled.name, len(unlabelled.images), unlabelled.label) == ("t", 2, None)
    touch(tmp_path, "test/labels/t_seg.nii")
    assert read_dataset("folder", tmp_path).test[0].label == tmp_path / "test/labels/t_seg.nii"


@pytest.mark.parametrize("layout", ["decathlon", "nnunet", "folder"])
def test_a_file_is_no_root(tmp_path: Path, layout: str) -> None:
    file = decathlon(tmp_path) / "dataset.json"
    says = (
        f"data.root={file}: is a file; data={layout} needs the folder, as in data.root={tmp_path}"
    )
    assert refusal(layout, file) == says.replace(str(file), "DIR")


@pytest.mark.parametrize(("make", "other"), [(decathlon, "decathlon"), (nnunet, "nnunet")])
def test_a_table_that_is_another_layout(
    tmp_path: Path, make: Callable[[Path], Path], other: str
) -> None:
    says = f"data.root=DIR: holds no table, so it is not data=table; this looks like data={other}"
    assert refusal("table", make(tmp_path)) == says


def test_a_folder_that_is_another_layout(tmp_path: Path) -> None:
    assert refusal("folder", decathlon(tmp_path)).endswith("; this looks like data=decathlon")
    (tmp_path / "dataset.json").write_text("3")
    assert (
        refusal("folder", tmp_path)
        == "data.root=DIR: has no folder images; closest: imagesTs, imagesTr, labelsTr"
    )


def folder(root: Path) -> Path:
    return touch(root, "images/a.nii", "labels/a.nii")


def table(root: Path) -> Path:
    touch(root, "a.nii", "b.nii")
    (root / "cases.csv").write_text("case,image,label\nA,a.nii,b.nii\n")
    return root


@pytest.mark.parametrize("make", [decathlon, nnunet, folder, table])
def test_a_dataset_looks_like_its_own_layout_alone(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    make(tmp_path)
    similar = [name for name in LAYOUTS if LAYOUTS[name]().looks_like(tmp_path)]
    assert similar == [make.__name__]


@pytest.mark.parametrize("layout", LAYOUTS.names())
def test_an_empty_folder_looks_like_no_layout(tmp_path: Path, layout: str) -> None:
    assert not LAYOUTS[layout]().looks_like(tmp_path)


def test_the_phantom_is_opened_as_any_other_layout(tmp_path: Path) -> None:
    options = composed(
        "data=phantom2d",
        f"data.root={tmp_path / 'phantom'}",
        "data.phantom.train=2",
        "data.phantom.test=1",
    )
    dataset = open_dataset(options.data)
    assert [case.name for case in dataset.cases] == ["phantom_000", "phantom_001"]
    assert [case.name for case in dataset.test] == ["unseen_000"]
    assert dataset.test[0].label is not None
    assert dataset.declares_channels


def test_a_layout_of_an_extension_is_opened_and_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LAYOUTS, "added", {})
    assert LAYOUTS["folder"]  # so that all built-in ones are registered before they are copied
    monkeypatch.setattr(LAYOUTS, "values", dict(LAYOUTS.values))

    @LAYOUTS.register("flat", help="label_NAME beside each NAME")
    class Flat(Layout):
        """Images and labels in one folder."""

        def looks_like(self, root: Path) -> bool:
            return any(root.glob("label_*.nii"))

        def read(self, data: Data) -> Dataset:
            root = root_folder(data)
            cases = []
            for label in sorted(root.glob("label_*.nii")):
                image = root / label.name.removeprefix("label_")
                cases.append(Case(image.stem, (image,), label))
            return Dataset(root.name, tuple(cases), (), None, ("image",))

    touch(tmp_path, "a.nii", "label_a.nii")
    assert [case.name for case in read_dataset("flat", tmp_path).cases] == ["a"]
    assert refusal("decathlon", tmp_path).endswith("; this looks like data.layout=flat")
    with pytest.raises(ConfigError, match="layout flat: there is one of that name already"):
        LAYOUTS.register("flat", help="another")(Flat)


def test_real_datasets(real_data: Path) -> None:
    hippocampus = read_dataset("decathlon", real_data / "Task04_Hippocampus")
    assert len(hippocampus.cases) == 200
    assert hippocampus.labels == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert len(read_dataset("folder", real_data / "nuclei").cases) == 200
    assert [case.name for case in read_dataset("folder", real_data / "spinal_cord").cases] == [
        "t1",
        "t2",
    ]
