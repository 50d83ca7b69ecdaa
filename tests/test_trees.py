"""BIDS, trees that patterns describe, and the layout of data.root alone."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.config import composed
from support.datasets import read_dataset
from test_layouts import decathlon, folder, nnunet, refusal, table, touch

from segpipe.config.train import Train
from segpipe.data.cases import Dataset
from segpipe.data.datasets import open_for_training, split_dataset
from segpipe.errors import ConfigError, SegpipeError


def bids(root: Path) -> Path:
    """Two participants, one with two sessions, label maps in a derivative."""
    for session in ("sub-01/ses-1", "sub-01/ses-2", "sub-02/ses-1"):
        name = session.replace("/", "_")
        touch(root, *[f"{session}/anat/{name}_{one}.nii.gz" for one in ("T1w", "FLAIR")])
        touch(root, f"{session}/anat/{name}_T1w.json", f"{session}/func/{name}_bold.nii.gz")
        touch(root, f"derivatives/manual/{session}/anat/{name}_space-orig_dseg.nii.gz")
    touch(root, "participants.tsv", "dataset_description.json", "sub-03/anat/sub-03_T1w.nii.gz")
    return root


def named(root: Path, dataset: Dataset) -> dict[str, list[str]]:
    found = {}
    for case in dataset.cases:
        found[case.name] = [path.relative_to(root).as_posix() for path in case.files]
    return found


def test_bids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        dataset = read_dataset("bids", bids(tmp_path))
    names = ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    assert [case.name for case in dataset.cases] == names
    assert [case.group for case in dataset.cases] == ["sub-01", "sub-01", "sub-02"]
    assert named(tmp_path, dataset)["sub-01_ses-2"] == [
        "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "derivatives/manual/sub-01/ses-2/anat/sub-01_ses-2_space-orig_dseg.nii.gz",
    ]
    assert dataset.channels == ("FLAIR", "T1w")
    assert "passed over 1 of 4 cases: sub-03 (no label map)" in caplog.text


def test_bids_of_one_session_and_chosen_channels(tmp_path: Path) -> None:
    touch(bids(tmp_path), "sub-03/anat/sub-03_label-lesion_mask.nii.gz")
    dataset = read_dataset("bids", tmp_path, suffixes=["T1w"])
    assert [case.name for case in dataset.cases][-1] == "sub-03"
    assert [path.name for path in dataset.cases[-1].images] == ["sub-03_T1w.nii.gz"]
    assert [len(case.images) for case in dataset.cases] == [1, 1, 1, 1]


def test_bids_with_several_label_maps_asks_which(tmp_path: Path) -> None:
    for number in ("01", "02"):
        touch(tmp_path, f"sub-{number}/dwi/sub-{number}_dwi.nii.gz")
        touch(tmp_path, f"derivatives/sub-{number}/sub-{number}_msk.nii.gz")
        touch(tmp_path, f"derivatives/fmriprep/sub-{number}/anat/sub-{number}_desc-brain_mask.nii")
    text = refusal("bids", tmp_path)
    assert "DIR: sub-01 has 2 label maps: derivatives/fmriprep/sub-01/anat/sub-01_desc" in text
    assert text.endswith("as in data.label=desc-brain_mask")
    dataset = read_dataset("bids", tmp_path, label="msk")
    assert named(tmp_path, dataset)["sub-02"] == [
        "sub-02/dwi/sub-02_dwi.nii.gz",
        "derivatives/sub-02/sub-02_msk.nii.gz",
    ]
    dataset = read_dataset("bids", tmp_path, label="derivatives/fmriprep/*_mask")
    assert named(tmp_path, dataset)["sub-02"][1].endswith("anat/sub-02_desc-brain_mask.nii")


DSEG = "index\tname\tcolor\n0\tUnknown\t#000000\n{}\t{}\t#ff0000\n7\tleft horn\t#00ff00\n"


@pytest.mark.parametrize(
    "table",
    [
        "derivatives/manual/dseg.tsv",
        "derivatives/manual/space-orig_dseg.tsv",
        "dseg.tsv",
        "derivatives/manual/sub-01/ses-1/anat/sub-01_ses-1_space-orig_dseg.tsv",
    ],
)
def test_bids_names_the_ids_of_label_maps(tmp_path: Path, table: str) -> None:
    (bids(tmp_path) / table).write_text(DSEG.format(2, "hippocampus"))
    (tmp_path / "derivatives/manual/desc-other_dseg.tsv").write_text(DSEG.format(2, "other"))
    dataset = read_dataset("bids", tmp_path)
    assert dataset.labels is None, "an atlas names far more ids than the label maps hold"
    assert dataset.names == {0: "Unknown", 2: "hippocampus", 7: "left horn"}


def test_bids_names_that_contradict_or_cannot_be_read_are_refused(tmp_path: Path) -> None:
    root = bids(tmp_path)
    (root / "dseg.tsv").write_text(DSEG.format(2, "hippocampus"))
    own = root / "derivatives/manual/sub-02/ses-1/anat/sub-02_ses-1_dseg.tsv"
    own.write_text(DSEG.format(2, "amygdala"))
    assert "names the id 2 'amygdala', and another table 'hippocampus'" in refusal("bids", root)
    own.write_text("index\tlabel\n2\tx\n")
    assert "has no columns index and name" in refusal("bids", root)
    own.write_text("index\tname\ntwo\tx\n")
    assert "row 2 has the index 'two'" in refusal("bids", root)


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        ("images/a.nii labels/a.nii", {}, "has no folder sub-*; this looks like data=folder"),
        (
            "sub-1/anat/sub-1_T1w.nii",
            {},
            "no session has a label map whose name ends in dseg, mask",
        ),
        ("sub-1/anat/T1.nii sub-1/anat/seg.nii", {"suffixes": ["T2"]}, "which has T1"),
        (
            "sub-1/anat/sub-1_run-1_T1w.nii sub-1/anat/sub-1_run-2_T1w.nii sub-1/anat/seg.nii",
            {},
            "sub-1 has 2 images T1w: sub-1_run-1_T1w.nii, sub-1_run-2_T1w.nii; choose by how the "
            "name ends, as in data.suffixes=[run-1_T1w]",
        ),
        (
            "sub-1/a/T1.nii sub-1/a/seg.nii sub-2/a/T2.nii sub-2/a/seg.nii",
            {},
            "the labelled sessions have no image in common; found T1, T2: choose by data.suffixes",
        ),
    ],
)
def test_a_broken_bids(tmp_path: Path, names: str, options: dict[str, object], says: str) -> None:
    assert says in refusal("bids", touch(tmp_path, *names.split()), **options)


def test_patterns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for case in ("ann", "bob [2]", "ü=1"):
        touch(tmp_path, f"{case}/anat/T1_{case}.nii.gz", f"{case}/anat/T2.nii", f"{case}/seg-1.nii")
    touch(
        tmp_path, "no mask/anat/T1_no mask.nii.gz", "no mask/anat/T2.nii", "ann/anat/T1_bob.nii.gz"
    )
    with caplog.at_level(logging.WARNING):
        dataset = read_dataset(
            "pattern",
            tmp_path,
            images=["{case}/anat/T1_{case}.nii.gz", "{case}\\anat\\T2.nii"],
            label="./{case}/seg*.nii",
        )
    assert named(tmp_path, dataset) == {
        case: [f"{case}/anat/T1_{case}.nii.gz", f"{case}/anat/T2.nii", f"{case}/seg-1.nii"]
        for case in ("ann", "bob [2]", "ü=1")
    }
    assert "passed over 1 of 4 cases: no mask (no ./{case}/seg*.nii)" in caplog.text


@pytest.mark.parametrize(
    ("images", "label", "says"),
    [
        (None, "{case}/l.nii", "data=pattern needs data.images, as in data.images='{case}/anat/T1"),
        (["{case}/i.nii"], None, "needs data.label, as in"),
        (None, None, "; here perhaps data.images='{case}/i.nii' data.label='{case}/seg.nii'"),
        (["i.nii"], "{case}/seg.nii", "data.images=i.nii: must hold {case}"),
        (["{subject}/i.nii"], "{case}/seg.nii", "data.images={subject}/i.nii: must hold {case}"),
        (["**/{case}.nii"], "{case}/seg.nii", "must hold {case}, and may hold * for any text"),
        (["../{case}/i.nii"], "{case}/seg.nii", "must be relative to data.root and stay below it"),
        (["/{case}/i.nii"], "{case}/seg.nii", "must be relative to data.root and stay below it"),
        (
            ["{case}/x.nii"],
            "{case}/seg.nii",
            "data.images={case}/x.nii: matches nothing in DIR; fo",
        ),
        (["{case}/*.nii"], "{case}/seg.nii", "both match for the case a; one must"),
        (["{case}/i.nii"], "a/{case}.nii", "no case matches all patterns, such as a, which has no"),
    ],
)
def test_a_wrong_pattern(
    tmp_path: Path, images: list[str] | None, label: str | None, says: str
) -> None:
    touch(tmp_path, "a/i.nii", "a/seg.nii", "b/i.nii", "b/seg.nii")
    assert says in refusal("pattern", tmp_path, images=images, label=label)


NAME = st.text("ab_-.[](){}=ü 1", min_size=1, max_size=6).filter(
    lambda name: name.strip(" .") == name
)


@given(names=st.sets(NAME, min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_every_name_of_a_case_is_found(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in names:
        touch(root, f"{name}/anat/x {name}.nii.gz", f"masks/[of] {name}_seg.nii")
    dataset = read_dataset(
        "pattern", root, images=["{case}/anat/x {case}.nii.gz"], label="masks/[of] {case}_seg.nii"
    )
    assert {case.name for case in dataset.cases} == names
    for case in dataset.cases:
        assert case.images == (root / case.name / "anat" / f"x {case.name}.nii.gz",)


def settled(root: Path, *overrides: str) -> tuple[Train, Dataset]:
    return open_for_training(composed(f"data.root={root}", *overrides))


@pytest.mark.parametrize("make", [decathlon, nnunet, folder, table, bids])
def test_a_root_alone_is_recognised(
    tmp_path: Path, make: object, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path)  # type: ignore[operator]
    with caplog.at_level(logging.INFO):
        options, dataset = settled(tmp_path)
    layout = make.__name__  # type: ignore[attr-defined]
    assert options.data.layout == layout
    assert dataset.cases
    assert f"{tmp_path} is taken for data={layout}, since no data= is given" in caplog.text


def test_a_table_or_patterns_alone_are_recognised(tmp_path: Path) -> None:
    assert settled(table(tmp_path) / "cases.csv")[0].data.layout == "table"
    touch(tmp_path, "p/i.nii", "p/seg.nii")
    options, _ = settled(tmp_path, "data.images='{case}/i.nii'", "data.label='{case}/seg.nii'")
    assert options.data.layout == "pattern"
    assert options.data.images == ["{case}/i.nii"]


def test_a_root_that_might_be_two_layouts_asks_which(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="might be several layouts; choose data=folder or data=n"):
        settled(folder(nnunet(tmp_path)))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            "p1/T1.nii p1/lesion_mask.nii p2/T1.nii p2/lesion_mask.nii",
            "nearest: data=pattern data.images='{case}/T1.nii' data.label='{case}/lesion_mask.nii'",
        ),
        ("Images/a.nii Masks/a.nii", "found Images, Masks; nearest: Images, as by data=folder"),
        ("notes.txt", "found notes.txt; describe it by data=pattern"),
    ],
)
def test_a_root_that_is_no_dataset(tmp_path: Path, names: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settled(touch(tmp_path, *names.split()))
    text = str(caught.value)
    assert says in text
    for sign in ("dataset.json", "images", "sub-*", "*.csv"):
        assert sign in text.split("found")[0]
    assert "remove" not in text
    assert "\n" not in text


def test_a_phantom_stays_one(tmp_path: Path) -> None:
    words = ["data=phantom2d", "data.phantom.train=2", "data.phantom.test=1"]
    for _ in range(2):  # written, then found
        assert settled(tmp_path / "new", *words)[0].data.layout == "phantom"
    with pytest.raises(SegpipeError, match="holds a phantom with train=2, not train=3; choose"):
        settled(tmp_path / "new", "data=phantom2d", "data.phantom.train=3", "data.phantom.test=1")


def test_a_tables_own_columns(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.nii", "x/b.nii", "a.nii", "b.nii")
    text = "\ufeffSubject;T1 scan;MASK;Group\r\nA;x\\a.nii;a.nii;p\r\nB;x\\b.nii;b.nii;p\r\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    word = "data.columns={case:Subject,image:'t1 SCAN',label:Mask}"
    options, dataset = settled(tmp_path / "t.csv", word)
    assert options.data.layout == "table"
    assert named(tmp_path, dataset) == {"A": ["x/a.nii", "a.nii"], "B": ["x/b.nii", "b.nii"]}
    assert [case.group for case in dataset.cases] == ["p", "p"]
    with pytest.raises(ConfigError, match="data.columns.scan: there are case, image, label, split"):
        composed(f"data.root={tmp_path}", "data.columns={scan:Subject}")


def test_groups_by_a_pattern_are_never_divided(tmp_path: Path) -> None:
    names = [f"eye{number:02d}_{side}" for number in range(6) for side in "LR"]
    touch(tmp_path, *[f"{part}/{name}.nii" for name in names for part in ("images", "labels")])
    options, dataset = settled(tmp_path, "data.group='(.+)_[LR]$'")
    split = split_dataset(dataset, options.data)
    assert {name[:5] for name in split.train}.isdisjoint(name[:5] for name in split.val)
    with pytest.raises(ConfigError, match="data.group=x.z: matches none of the 12 case names"):
        settled(tmp_path, "data.group=x.z")
    with pytest.raises(ConfigError, match=r"data.group: '\(a' is no regular expression"):
        composed(f"data.root={tmp_path}", "data.group='(a'")
    (tmp_path / "split.json").write_text(json.dumps({"train": names[::2], "val": names[1::2]}))
    options, dataset = settled(
        tmp_path, "data.group='(.+)_[LR]$'", f"data.split={tmp_path / 'split.json'}"
    )
    with pytest.raises(ConfigError, match="has eye00, eye01, eye02 on both sides"):
        split_dataset(dataset, options.data)
