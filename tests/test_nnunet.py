"""nnU-Net's raw layout, whole: regions, ignored voxels, named files, normalisation, endings."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.config import composed
from support.datasets import read_dataset
from support.plans import fingerprint
from test_layouts import nnunet, refusal, touch

from segpipe.data.datasets import open_for_training
from segpipe.errors import SegpipeError
from segpipe.io.formats import ENDINGS
from segpipe.planning.rules import make_plan

BRATS_PED = {"background": 0, "WT": [1, 2, 3, 4], "TC": [1, 2, 3], "ET": [1]}


def test_regions_and_what_they_paint(tmp_path: Path) -> None:
    nnunet(tmp_path, labels=BRATS_PED, regions_class_order=[4, 3, 1])
    options = composed("data=nnunet", f"data.root={tmp_path}")
    options, dataset = open_for_training(options)
    assert dataset.labels is not None
    names = ["background", "ET", "label 2", "label 3", "label 4"]
    assert dataset.labels == dict(zip(names, range(5), strict=True))
    assert options.data.regions == {"WT": [1, 2, 3, 4], "TC": [1, 2, 3], "ET": [1]}
    assert options.data.paint == {"WT": 4, "TC": 3, "ET": 1}
    plan = make_plan(options, fingerprint((1, 1, 1), (9, 9, 9)), ["T1"], dataset.labels, "cpu")
    assert plan.paint == {"WT": 4, "TC": 3, "ET": 1}
    assert list(plan.targets) == ["WT", "TC", "ET"]


def test_regions_without_an_order_and_with_options_of_ones_own(tmp_path: Path) -> None:
    nnunet(tmp_path, labels=BRATS_PED)
    root = f"data.root={tmp_path}"
    options, _ = open_for_training(composed("data=nnunet", root))
    assert options.data.paint is None  # derived
    options, _ = open_for_training(composed("data=nnunet", root, "data.paint={ET:1}"))
    assert (options.data.paint, len(options.data.regions or {})) == ({"ET": 1}, 3)
    given = "data.regions={all:[1,2,3,4]}"
    options, _ = open_for_training(composed("data=nnunet", root, given))
    assert options.data.regions == {"all": [1, 2, 3, 4]}


def test_labels_that_are_lists_of_one_id_are_labels(tmp_path: Path) -> None:
    nnunet(tmp_path, labels={"background": [0], "edema": [1], "core": 2})
    dataset = read_dataset("nnunet", tmp_path)
    assert (dataset.labels, dataset.regions) == ({"background": 0, "edema": 1, "core": 2}, None)


@pytest.mark.parametrize("labels", [{"edema": 1}, {"whole": [1, 2], "core": 2}])
def test_the_ignored_label(tmp_path: Path, labels: dict[str, Any]) -> None:
    nnunet(tmp_path, labels={"background": 0, **labels, "ignore": 3})
    options, dataset = open_for_training(composed("data=nnunet", f"data.root={tmp_path}"))
    assert options.data.ignore_label == 3
    assert 3 not in (dataset.labels or {}).values()
    assert "ignore" not in (options.data.regions or {})
    given = composed("data=nnunet", f"data.root={tmp_path}", "data.ignore_label=7")
    assert open_for_training(given)[0].data.ignore_label == 7


def test_the_files_that_dataset_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", str(tmp_path / "store"))
    touch(tmp_path, "store/x0.nii", "store/x1.nii", "store/x.nii", "raw/y/0.nii", "raw/y/1.nii")
    touch(tmp_path, "raw/y/seg.nii")
    mapping = {
        "p2": {"images": ["$STORE/x0.nii", "$STORE/x1.nii"], "label": "$STORE/x.nii"},
        "p1": {"images": ["y\\0.nii", "y/1.nii"], "label": "y/seg.nii"},
    }
    facts = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1}}
    (tmp_path / "raw/dataset.json").write_text(json.dumps(facts | {"dataset": mapping}))
    dataset = read_dataset("nnunet", tmp_path / "raw")
    assert [case.name for case in dataset.cases] == ["p1", "p2"]
    assert dataset.cases[0].images == (tmp_path / "raw/y/0.nii", tmp_path / "raw/y/1.nii")
    assert dataset.cases[1].label == tmp_path / "store/x.nii"


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_that_can_be_read(tmp_path: Path, ending: str) -> None:
    nnunet(tmp_path, file_ending=ending, channel_names={"0": "T1"})
    touch(tmp_path, f"imagesTr/p_0000{ending}", f"labelsTr/p{ending}")
    for old in (*tmp_path.glob("*Tr/a*"), *tmp_path.glob("*Tr/b*")):
        old.unlink()
    (case,) = read_dataset("nnunet", tmp_path).cases
    assert (case.name, case.label) == ("p", tmp_path / f"labelsTr/p{ending}")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("noNorm", "none"),
        ("rescale_to_0_1", "rescale"),
        ("rgb_to_0_1", "rgb"),
        ("CT", "ct"),
        ("zscore", "zscore"),
        ("T1", "zscore"),
    ],
)
def test_a_channels_name_is_its_normalisation(name: str, rule: str) -> None:
    labels = {"background": 0, "a": 1}
    plan = make_plan(composed(), fingerprint((1, 1, 1), (9, 9, 9)), [name], labels, "cpu")
    assert plan.normalise == [rule]
    given = composed("plan.normalise=zscore")
    plan = make_plan(given, fingerprint((1, 1, 1), (9, 9, 9)), [name], labels, "cpu")
    assert plan.normalise == ["zscore"]


def test_another_number_of_cases_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nnunet(tmp_path, numTraining=7)
    with caplog.at_level(logging.WARNING):
        read_dataset("nnunet", tmp_path)
    assert "dataset.json: numTraining is 7, but there are 2 cases" in caplog.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": BRATS_PED, "regions_class_order": [1, 2]}, "a list of 3 ids, one for each"),
        ({"labels": BRATS_PED, "regions_class_order": [1, 2, "x"]}, "must look like [1, 2, 3]"),
        ({"labels": {"background": 0, "whole": []}}, "'labels' must look like"),
        ({"labels": {"background": 0, "whole": [1, float("nan")]}}, "'labels' must look like"),
        ({"labels": {"background": 0, "a": 2**40}}, "'labels' must look like"),
        ({"labels": {"background": 0, "a": 2**33}}, "has the id 8589934592; at most 4294967295"),
        ({"labels": {"background": 0, "a\nb": 1}}, "the label a\\nb holds a character that cannot"),
        ({"labels": {"background": 0, "a" * 5000: 1}}, "has 5000 bytes; at most 200"),
        ({"labels": {str(n): n for n in range(5000)}}, "has 5000 labels; at most 254"),
        ({"file_ending": ".exe"}, "'file_ending' is '.exe', which is no format that can be read"),
        ({"file_ending": 3}, "'file_ending' is 3, which is no format"),
        ({"dataset": []}, "'dataset' must look like"),
        ({"dataset": {"a": {"images": [3], "label": "b"}}}, "an entry of 'dataset' must look like"),
        ({"dataset": {"a": {"images": ["b"]}}}, "an entry of 'dataset' must look like"),
        ({"dataset": {"a": {"images": ["b"] * 3, "label": "c"}}}, "names 3 images of 2"),
        ({"dataset": {"a": {"images": ["b\0"], "label": "c"}}}, "holds no file of the name"),
        ({"dataset": {"a": {"images": ["b" * 9999], "label": "c"}}}, "do not exist, such as"),
    ],
)
def test_hostile_content_is_one_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    text = refusal("nnunet", nnunet(tmp_path, **changes))
    assert says in text
    assert len(text.splitlines()) == 1


def test_deep_json_is_one_line(tmp_path: Path) -> None:
    (nnunet(tmp_path) / "dataset.json").write_text('{"channel_names":' + "[" * 10**5 + "]" * 10**5)
    assert "cannot be read as JSON" in refusal("nnunet", tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


KEYS = ("channel_names", "labels", "file_ending", "dataset", "numTraining", "name")


@given(key=st.sampled_from(KEYS),
       value=JSON)  # fmt: skip
@settings(deadline=None)
def test_any_value_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    root = nnunet(tmp_path_factory.getbasetemp() / "hostile", **{key: value})
    said = ""
    try:
        read_dataset("nnunet", root)
    except SegpipeError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
    assert len(said) < 1000
