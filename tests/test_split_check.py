"""What a split makes of a dataset, said before the training: labels and patients."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.data.cases import Case
from segpipe.data.grouping import group_of, suggest_groups
from segpipe.data.inspected_case import InspectedCase
from segpipe.data.split_check import check_split

LABELS = {"background": 0, "organ": 1, "tumour": 2}


def inspected(cases: Mapping[str, Sequence[int]]) -> list[InspectedCase]:
    found = []
    for name, ids in cases.items():
        found.append(InspectedCase(Case(name, (Path(name),), None), ids=np.array([0, *ids])))
    return found


@pytest.mark.parametrize(
    ("train", "val", "says"),
    [
        ({"a": [1, 2], "b": [1]}, {"c": [1, 2]}, []),
        (
            {"a": [1], "b": [1]},
            {"c": [1, 2]},
            [
                "the label tumour (2) is in 1 validation case, such as c, but in none of 2 training "
                "cases: it cannot be learnt"
            ],
        ),
        (
            {"a": [1], "b": [1]},
            {"c": [1]},
            [
                "the label tumour (2) is declared, but none of 2 training cases and 1 validation "
                "case has it"
            ],
        ),
        (
            {"a": [1], "b": [1, 2]},
            {"c": [1]},
            [
                "the label tumour (2) is in 1 training case, such as b, but in none of 1 validation "
                "case: only where it is found by mistake does it count"
            ],
        ),
    ],
)
def test_labels_that_a_side_lacks(
    train: dict[str, list[int]], val: dict[str, list[int]], says: list[str]
) -> None:
    findings = check_split(inspected(train), inspected(val), LABELS)
    assert [finding.problem for finding in findings] == says
    assert {(finding.kind, finding.severity) for finding in findings} <= {("label", "warning")}
    undeclared = check_split(inspected(train), inspected(val), None)
    assert len(undeclared) == (len(says) if "declared" not in "".join(says) else 0)


@pytest.mark.parametrize(
    ("names", "pattern", "groups"),
    [
        ("eye1_L eye1_R eye2_L eye2_R eye3_L", r"^(.+?)[_-](?:L|R|left|right|OD|OS|OI)$", 3),
        (
            "patient001_frame01 patient001_frame12 patient002_frame01 patient002_frame09",
            r"^(.+?)[_-](?:frame|slice|sl|img|image|view|plane|z|f|s)-?\d+$",
            2,
        ),
        (" ".join(f"p{p:02d}_{n:02d}" for p in range(4) for n in range(20)), r"^(.+)[_-]\d+$", 4),
        ("case01a case01b case02a case02b", r"^(.+\d)[a-z]$", 2),
        ("p1_ED p1_ES p2_ED p2_ES", r"^(.+?)[_-](?:ED|ES)$", 2),
        ("ann_1 ann_2 bob_1 bob_2 eve_1 eve_2", r"^(.+)[_-]\d+$", 3),
    ],
)
def test_names_that_suggest_patients(names: str, pattern: str, groups: int) -> None:
    suggestion = suggest_groups(names.split())
    assert suggestion is not None
    assert (suggestion.pattern, len(suggestion.groups)) == (pattern, groups)
    grouped = [name for names in suggestion.groups.values() for name in names]
    assert sorted(grouped) == sorted(names.split())


@pytest.mark.parametrize(
    "names",
    [
        [f"hippocampus_{number:03d}" for number in range(1, 300, 3)],
        [f"BRATS_{number}" for number in range(50)],
        [f"{site}_{number:03d}" for site in ("btcv", "kits", "msd") for number in range(30)],
        [f"LIDC-IDRI-{number:04d}" for number in range(20)],
        [f"s{number:04d}" for number in range(40)],
        [f"{number:02x}a{number * 7919:06x}" for number in range(60)],
        ["t1", "t2"],
        ["a"],
        [],
    ],
)
def test_plain_numbers_suggest_none(names: list[str]) -> None:
    assert suggest_groups(names) is None


def test_patients_on_both_sides_are_named_with_the_key() -> None:
    train = inspected({"eye1_L": [1], "eye2_L": [1], "eye2_R": [1]})
    val = inspected({"eye1_R": [1], "eye3_L": [1], "eye3_R": [1]})
    (finding,) = check_split(train, val, None)
    assert finding.problem == (
        "the names suggest 3 patients of several cases, such as eye1 (eye1_L, eye1_R), and 1 of "
        "them both train and validate"
    )
    assert finding.remedy.startswith("if so, give data.group='^(.+?)[_-](?:L|R|left|right|")
    assert check_split(train[1:], val[1:], None) == []


@given(
    patients=st.lists(st.text("abc019", min_size=1, max_size=5), min_size=2, unique=True),
    sides=st.sampled_from([("L", "R"), ("OD", "OS"), ("left", "right")]),
)
@settings(deadline=None)
def test_a_suggested_pattern_finds_the_patients(
    patients: list[str], sides: tuple[str, str]
) -> None:
    names = [f"{patient}_{side}" for patient in patients for side in sides]
    suggestion = suggest_groups(names)
    assert suggestion is not None
    assert sorted(suggestion.groups) == sorted(patients)
    for name in names:
        assert group_of(name, suggestion.pattern) == name.rpartition("_")[0]
