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

NOTHING = {"file": None, "folds": None, "fold": None, "fraction": 0.2, "seed": 0}


def cases(count: int, patients: int | None = None) -> list[Case]:
    return [
        Case(f"case_{number:03d}", (Path(f"{number}.nii"),), Path("label.nii"), patients and f"p{number % patients}")
        for number in range(count)
    ]


@given(count=st.integers(2, 60), folds=st.integers(2, 7), data=st.data())
def test_folds_are_scikit_learns(count: int, folds: int, data: st.DataObject) -> None:
    folds = min(folds, count)
    fold = data.draw(st.integers(0, folds - 1))
    split = split_cases(cases(count)[::-1], **NOTHING | {"folds": folds, "fold": fold})
    expected = list(KFold(folds, shuffle=True, random_state=12345).split(range(count)))[fold]
    names = [case.name for case in cases(count)]
    assert split == Split(tuple(names[i] for i in expected[0]), tuple(names[i] for i in expected[1]))


@given(count=st.integers(2, 60), patients=st.integers(2, 20), fraction=st.floats(0.05, 0.8), seed=st.integers(0, 99))
def test_a_patient_is_never_on_both_sides(count: int, patients: int, fraction: float, seed: int) -> None:
    both = cases(count, patients)
    split = split_cases(both, **NOTHING | {"fraction": min(fraction, 0.4), "seed": seed})
    group = {case.name: case.group for case in both}
    assert not {group[name] for name in split.train} & {group[name] for name in split.val}
    assert sorted((*split.train, *split.val)) == sorted(group)


def test_the_fraction_is_met_and_follows_the_seed() -> None:
    first, again, other = (split_cases(cases(50), **NOTHING | {"seed": seed}) for seed in (1, 1, 2))
    assert len(first.val) == 10
    assert first == again != other


def test_a_written_split_reads_back(tmp_path: Path) -> None:
    split = split_cases(cases(10), **NOTHING)
    write_split(split, tmp_path / "split.json")
    assert split_cases(cases(10), **NOTHING | {"file": tmp_path / "split.json", "seed": 9}) == split


def test_a_list_of_splits_is_picked_by_the_fold(tmp_path: Path) -> None:
    both = [{"train": ["case_000"], "val": ["case_001"]}, {"train": ["case_001"], "val": ["case_000"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(both))
    given_ = NOTHING | {"file": tmp_path / "splits_final.json"}
    assert split_cases(cases(2), **given_ | {"fold": 1}) == Split(("case_001",), ("case_000",))
    with pytest.raises(ConfigError, match="holds 2 splits; pick one by data.fold=0 to 1"):
        split_cases(cases(2), **given_)


def test_a_tables_own_split_is_taken() -> None:
    own = [Case("a", (Path("a"),), Path("l"), None, "train"), Case("b", (Path("b"),), Path("l"), None, "val")]
    assert split_cases(own, **NOTHING) == Split(("a",), ("b",))
    with pytest.raises(ConfigError, match="the table has a split column"):
        split_cases(own, **NOTHING | {"folds": 2, "fold": 0})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"folds": 5}, "data.folds and data.fold go together"),
        ({"fold": 0}, "data.folds and data.fold go together"),
        ({"folds": 5, "fold": 5}, "data.fold is 5; with data.folds=5 it must be from 0 to 4"),
        ({"folds": 11, "fold": 0}, "data.folds is 11; for 10 cases or groups it must be from 2 to 10"),
        ({"folds": 1, "fold": 0}, "data.folds is 1; for 10 cases or groups it must be from 2 to 10"),
        ({"fraction": 1.0}, "the split leaves no case to train among 10"),
    ],
)
def test_an_impossible_split_says_why(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        split_cases(cases(10), **NOTHING | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"train": ["case_000"], "val": ["case_01"]}', "no case is called case_01; did you mean case_001?"),
        ('{"train": ["case_000"], "val": ["case_000"]}', "has case_000 on both sides"),
        ('{"train": ["case_000"], "val": []}', "leaves no case to val"),
        ('{"train": ["case_000"]}', "must be {"),
        ("[", "cannot be read as JSON"),
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
