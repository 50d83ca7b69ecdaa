"""Paths as people have them, on the command line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.commands import command

from segpipe.config.compose import check, hydra_on_conf, named_extensions, split_jobs
from segpipe.config.data import Data
from segpipe.config.predict import Predict
from segpipe.config.probe import Lesion
from segpipe.config.quoting import Text, as_typed, literal, quoted, text_of
from segpipe.config.section import Section
from segpipe.config.train import Train
from segpipe.config.validation import keys, validate
from segpipe.errors import ConfigError
from segpipe.resume import command_line

ODD = [
    "a b", " a", "a ", "ä ö", "患者 1", "a=b", "a,b", "[a]", "[a,b]", "{a}", "{a:b}", "(a)", "a(1)", "it's", 'say "x"',
    "'a'", '"a"', "a#b", "a&b", "a;b", "a:b", "$HOME", "${a}", "a${b", "\\${a}", "\\\\${a}", "a\\", "a\\'", "\\", "a\\b",
    "2026", "1_000", "1e5", "true", "nan", "???", "~a", "a~b", "!x", "<a>", "a\tb", "a|b", "a*b?", "glob(a)", "range(3)",
    "choice(a,b)", "%d", "+a", "@a", "a@b", "\u202ea", "😀", "${now:%Y}", "a\nb", "`a`", "^a", "[", "]", "a]", "{", "}",
]  # fmt: skip
NAMES = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


def composed(program: str, schema: type[Section], *words: str) -> Any:
    from hydra import compose
    from omegaconf import OmegaConf

    with hydra_on_conf():
        values = OmegaConf.to_container(compose(program, quoted(words, schema)), resolve=True)
    return validate(schema, values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_paths_where_they_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    for folder in (name, str(tmp_path / name)):
        words = [f"{key}={folder}" for key in ("input", "output", "truth", "checkpoint")]
        options = composed("predict", Predict, *words)
        assert Path(options.input) == Path(folder)
        assert options.checkpoint == [Path(folder)]
        assert [options.output, options.truth] == [Path(folder)] * 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True))
@example(names=["a\\", "'"])
@example(names=["null", "a"])
def test_any_name_that_exists_is_what_the_options_receive(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folders = []
    for name in names:
        folder = tmp_path_factory.mktemp("run") / name
        folder.mkdir()
        folders.append(folder)
    words = [f"input={folders[0]}", f"output={folders[1]}", f"checkpoint={folders[1]}"]
    options = composed("predict", Predict, *words)
    assert options.input == str(folders[0])
    assert options.output == folders[1]
    assert options.checkpoint == [folders[1]]


@settings(max_examples=60, deadline=None)
@given(name=NAMES.filter(lambda name: not name.startswith(("~", "'", '"')) and name != "???"))
def test_a_quoted_text_reads_back(name: str) -> None:
    assert text_of(f"output={literal(name)}") == name


def test_a_name_that_is_not_there_yet(tmp_path: Path) -> None:
    for name in (
        "Müller (2)",
        "a=b",
        "2026",
        "1e5",
        "[1]",
        "{a}",
        "my masks",
        "#1 & more",
        "a, b",
        "glob(x)",
        "masks ",
    ):
        options = composed(
            "predict", Predict, "checkpoint=a", "input=a", f"output={tmp_path / name}"
        )
        assert options.output == tmp_path / name
    for name in ("2026", "masks ", " masks"):
        options = composed("predict", Predict, "checkpoint=a", "input=a", f"output={name}")
        assert options.output == Path(name)


def test_lists_are_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "ü (1)", "b,c"):
        Path(name).mkdir()
    for typed, runs in (
        ("[a,b]", ["a", "b"]),
        ("[a,ü (1)]", ["a", "ü (1)"]),
        ("[a, ü (1), b,c]", ["a", "ü (1)", "b,c"]),
        ("['b,c',\"ü (1)\"]", ["b,c", "ü (1)"]),
        ("[1,2]", ["1", "2"]),
        ("'ü (1)'", ["ü (1)"]),
    ):
        options = composed("predict", Predict, f"checkpoint={typed}", "input=a", "output=m")
        assert options.checkpoint == list(map(Path, runs)), typed
    Path("[a,b]").mkdir()
    options = composed("predict", Predict, "checkpoint=[a,b]", "input=a", "output=m")
    assert options.checkpoint == [Path("[a,b]")]


def test_the_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = composed("predict", Predict, "checkpoint=a", "input=~/scans", "output=~/my masks")
    assert options.input == str(tmp_path / "scans")
    assert options.output == tmp_path / "my masks"


def test_sweeps_over_odd_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "Ü (1)", "c,d", "${x}"):
        Path(name).mkdir()
    words = quoted(["-m", "data=folder", "data.root=a b,Ü (1),c,d,${x}", "seed=0,1"], Train)
    with hydra_on_conf():
        jobs = split_jobs("train", words[1:])
    roots = [text_of(word) for job in jobs for word in job if word.startswith("data.root=")]
    assert roots == ["a b", "a b", "Ü (1)", "Ü (1)", "c,d", "c,d", "${x}", "${x}"]
    for job in jobs:
        assert str(composed("train", Train, *job).data.root) in roots
    (same,) = quoted(["data.root=a b,c"], Train)  # not a sweep without -m, which says so
    assert same == "data.root=a b,c"


def test_every_key_that_names_files_is_known() -> None:
    known = [name for schema in (Predict, Train, Lesion) for name, field in keys(schema) if Text.of(field).is_path]  # fmt: skip
    for key in ("input", "output", "truth", "checkpoint", "extensions", "data.root", "data.split", "data.cache", "resume", "fix", "data_root"):  # fmt: skip
        assert key in known
    assert "seed" not in known
    assert Text.of(Data.model_fields["image_folder"]).is_text


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("save=[mask", 'quotes: "save='),
        ("overlap=0.5#", 'quotes: "overlap='),
        ("labels=[a", "cannot be read"),
        ("min_volume_ml={a:", "cannot be read"),
        ("my scans", "is not KEY=VALUE"),
        ("=a", "is not a key"),
        ("in put=a", "cannot be read"),
        ("inptu=ä", "cannot be read"),
        ("input=\udcfc", "is not UTF-8"),
        ("labels=" + "[" * 5000, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(word: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        check("predict", Predict, quoted([word, "checkpoint=a", "input=a", "output=b"], Predict))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert "Exception" not in str(refused.value)


def test_extensions_with_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for typed, names in (
        ("my skips (1).py", ["my skips (1).py"]),
        ("[a.py,ä b.py]", ["a.py", "ä b.py"]),
        ("a.py", ["a.py"]),
    ):
        for name in names:
            Path(name).touch()
        assert named_extensions("train", quoted([f"extensions={typed}"], Train)) == names


@pytest.mark.parametrize("name", ["my run (1)", "a${b}", "it's", "läuft=1,2"])
def test_a_run_in_an_odd_folder_is_resumed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    words = command_line(quoted([f"resume={name}"], Train))
    assert [text_of(word) for word in words] == [name, name]
    assert words[1].startswith("hydra.run.dir=")
    assert command_line(quoted(["resume=null"], Train)) == ["resume=null"]


def test_folders_of_hydra_keep_their_interpolations(tmp_path: Path) -> None:
    assert quoted(["hydra.run.dir=runs/${now:%Y}"], Train) == ["hydra.run.dir=runs/${now:%Y}"]
    (word,) = quoted(["hydra.run.dir=Läufe (1)/a=b"], Train)
    assert text_of(word) == "Läufe (1)/a=b"


def test_the_command_itself_takes_them(tmp_path: Path) -> None:
    folder = tmp_path / "Müller, Anna [2] = ${x} #1 & 'q'"
    folder.mkdir()
    (folder / "notes.txt").touch()
    checkpoint = folder / "a (1)"
    done = command(
        "predict.py", f"input={folder}", f"output={folder / 'masks'}", f"checkpoint={checkpoint}", folder=tmp_path
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert str(checkpoint) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("data.root='data/x-1'", "data.root=data/x-1"),
        ("name='123'", "name='123'"),
        ("name='null'", "name='null'"),
        ("data.root='my data'", "data.root='my data'"),
        ("plan.patch=[8,8,8]", "plan.patch=[8,8,8]"),
    ],
)
def test_a_command_is_shown_without_quotes_that_change_nothing(word: str, shown: str) -> None:
    assert as_typed(word) == shown
