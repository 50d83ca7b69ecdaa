"""Which cases train and which validate: nothing on both sides, and nnU-Net's folds."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from segpipe.data.cases import Case
from segpipe.data.split import Split, split_cases, write_split
from segpipe.errors import ConfigError

NOTHING = {"file": None, "folds": 5, "fold": None, "fraction": 0.2}


def cases(count: int, patients: int | None = None) -> list[Case]:
    return [
        Case(
            f"case_{number:03d}",
            (Path(f"{number}.nii"),),
            Path("label.nii"),
            patients and f"p{number % patients}",
        )
        for number in range(count)
    ]


@given(count=st.integers(2, 60), folds=st.integers(2, 7), data=st.data())
def test_folds_are_scikit_learns(count: int, folds: int, data: st.DataObject) -> None:
    folds = min(folds, count)
    fold = data.draw(st.integers(0, folds - 1))
    split = split_cases(cases(count)[::-1], **NOTHING | {"folds": folds, "fold": fold})
    expected = list(KFold(folds, shuffle=True, random_state=12345).split(range(count)))[fold]
    names = [case.name for case in cases(count)]
    assert split == Split(
        tuple(names[i] for i in expected[0]), tuple(names[i] for i in expected[1])
    )


@given(count=st.integers(2, 60), patients=st.integers(2, 20), fraction=st.floats(0.05, 0.8))
def test_a_patient_is_never_on_both_sides(count: int, patients: int, fraction: float) -> None:
    both = cases(count, patients)
    split = split_cases(both, **NOTHING | {"fraction": min(fraction, 0.4)})
    group = {case.name: case.group for case in both}
    assert not {group[name] for name in split.train} & {group[name] for name in split.val}
    assert sorted((*split.train, *split.val)) == sorted(group)


def test_the_fraction_is_met_by_cases_drawn_from_everywhere_and_always_the_same() -> None:
    first, again = (split_cases(cases(50), **NOTHING) for _ in range(2))
    assert len(first.val) == 10
    assert first == again
    assert set(first.val) not in (
        {case.name for case in cases(50)[:10]},
        {case.name for case in cases(50)[-10:]},
    )


def test_a_written_split_reads_back(tmp_path: Path) -> None:
    split = split_cases(cases(10), **NOTHING)
    write_split(split, tmp_path / "split.json")
    assert split_cases(cases(10), **NOTHING | {"file": tmp_path / "split.json"}) == split


def test_a_list_of_splits_is_picked_by_the_fold(tmp_path: Path) -> None:
    both = [
        {"train": ["case_000"], "val": ["case_001"]},
        {"train": ["case_001"], "val": ["case_000"]},
    ]
    (tmp_path / "splits_final.json").write_text(json.dumps(both))
    given_ = NOTHING | {"file": tmp_path / "splits_final.json"}
    assert split_cases(cases(2), **given_ | {"fold": 1}) == Split(("case_001",), ("case_000",))
    with pytest.raises(ConfigError, match="holds 2 splits; pick one by data.fold=0 to 1"):
        split_cases(cases(2), **given_)
    with pytest.raises(ConfigError, match="holds 2 splits; pick one by data.fold=0 to 1"):
        split_cases(cases(2), **given_ | {"fold": -1})


def test_a_tables_own_split_is_taken() -> None:
    own = [
        Case("a", (Path("a"),), Path("l"), None, "train"),
        Case("b", (Path("b"),), Path("l"), None, "val"),
    ]
    assert split_cases(own, **NOTHING) == Split(("a",), ("b",))
    with pytest.raises(ConfigError, match="the table has a split column"):
        split_cases(own, **NOTHING | {"folds": 2, "fold": 0})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"folds": 5, "fold": 5}, "data.fold is 5; with data.folds=5 it must be from 0 to 4"),
        ({"folds": 5, "fold": -1}, "data.fold is -1; with data.folds=5 it must be from 0 to 4"),
        (
            {"folds": 11, "fold": 0},
            "data.folds is 11; for 10 cases or groups it must be from 2 to 10",
        ),
        (
            {"folds": 1, "fold": 0},
            "data.folds is 1; for 10 cases or groups it must be from 2 to 10",
        ),
        (
            {"fraction": 1.0},
            "^data.fraction=1.0: leaves no case to train of 10 cases in 10 groups; each side needs one or more$",
        ),
    ],
)
def test_an_impossible_split_says_why(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        split_cases(cases(10), **NOTHING | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            '{"train": ["case_000"], "val": ["case_01"]}',
            "no case is called case_01; did you mean case_001?",
        ),
        ('{"train": ["case_000"], "val": ["case_000"]}', "split.json: has case_000 on both sides"),
        ('{"train": ["case_000"], "val": []}', "split.json: leaves no case to val"),
        ('{"train": ["case_000"]}', "must be {"),
        ("[", "cannot be read as JSON"),
        ("[]", "holds no split"),
        ('{"train": null, "val": ["case_000"]}', "must be {"),
        ('{"train": "case_001", "val": ["case_000"]}', "must be {"),
        (
            '{"train": ["case_001", "case_001"], "val": ["case_000"]}',
            "names case_001 2 times; each case must be named once",
        ),
    ],
)
def test_a_wrong_split_file_says_why(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(ConfigError, match=says):
        split_cases(cases(10), **NOTHING | {"file": tmp_path / "split.json"})


def test_a_patient_on_both_sides_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": ["case_000"], "val": ["case_002"]}')
    with pytest.raises(ConfigError, match="has p0 on both sides"):
        split_cases(cases(4, patients=2), **NOTHING | {"file": tmp_path / "split.json"})


def test_a_split_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"split=.*none.json: no such file$"):
        split_cases(cases(4), **NOTHING | {"file": tmp_path / "none.json"})


def test_a_split_file_comes_before_a_tables_split_and_may_leave_cases_out(tmp_path: Path) -> None:
    own = [Case(name, (Path(name),), Path("l"), None, "train") for name in "abc"]
    (tmp_path / "split.json").write_text('{"train": ["c"], "val": ["a"]}')
    assert split_cases(own, **NOTHING | {"file": tmp_path / "split.json"}) == Split(("c",), ("a",))


def test_a_tables_split_trains_on_what_does_not_validate() -> None:
    sides = {"a": "train", "b": "val", "d": None}
    own = [Case(name, (Path(name),), Path("l"), None, side) for name, side in sides.items()]
    assert split_cases(own, **NOTHING) == Split(("a", "d"), ("b",))


def test_a_patient_on_both_sides_of_a_table_is_refused() -> None:
    own = [Case(side, (Path(side),), Path("l"), "ann", side) for side in ("train", "val")]
    with pytest.raises(
        ConfigError, match="^the table's split column: has ann on both sides; each case or group"
    ):
        split_cases(own, **NOTHING)


@given(count=st.integers(2, 40), patients=st.integers(2, 12), folds=st.integers(2, 6))
def test_folds_part_the_cases_by_patient_as_scikit_learn_parts_the_patients(
    count: int, patients: int, folds: int
) -> None:
    grouped = cases(count, patients)
    names = sorted({str(case.group) for case in grouped})
    folds = min(folds, len(names))
    splits = [
        split_cases(grouped, **NOTHING | {"folds": folds, "fold": fold}) for fold in range(folds)
    ]
    assert sorted(name for split in splits for name in split.val) == sorted(
        case.name for case in grouped
    )
    for split, (_, val) in zip(
        splits, KFold(folds, shuffle=True, random_state=12345).split(names), strict=True
    ):
        assert {case.group for case in grouped if case.name in split.val} == {
            names[place] for place in val
        }


def test_written_splits_keep_names_of_any_script(tmp_path: Path) -> None:
    split = Split(("Zoë", "b"), ("患者",))
    own = [Case(name, (Path(name),), Path("l")) for name in (*split.train, *split.val)]
    write_split(split, tmp_path / "split.json")
    assert split_cases(own, **NOTHING | {"file": tmp_path / "split.json"}) == split
