"""Text from files is text wherever it is shown: pages, tables, terminal, log, figures."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rich
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.commands import REPOSITORY

from segpipe.errors import ConfigError, DataError
from segpipe.files import make_folder, read_table, write_table
from segpipe.prediction.record_store import RecordStore
from segpipe.reporting.page import Column, Link, Table, write_page
from segpipe.reporting.pictures import draw_overlay
from segpipe.reporting.run_record import RunRecord
from segpipe.stored import read_yaml
from segpipe.study.report import StudyPage
from segpipe.study.tables import markdown_table
from segpipe.terminal import TerminalHandler, logged_to, show_table
from segpipe.text import HIDDEN, name_fault, visible
from segpipe.verdict import Judgement

HOSTILE = [
    "[/b]",
    "[red]x[/red]",
    r"$\frac{$",
    "$$",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    '" onload="x',
    "{{ 7 * 7 }}",
    "=HYPERLINK(1)",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1+1",
    "\r=1+1",
    "'=1+1",
    "a,b;c",
    "a|b",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "liver\u202egnp.exe",
    "line\nbreak",
    "nul\x00",
    "\udcff",
    "\u2028",
    "%s%n%(x)s",
    "\\",
    "Leber 肝臓",
]


def reached(text: str) -> bool:
    """Whether something that nobody sees has reached a reader."""
    return HIDDEN.search(text.replace("\n", "")) is not None


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_page_shows_it_as_text(name: str, tmp_path: Path) -> None:
    table = Table(name, [Column(name), Column("n", 1)], [[name, 1.0], [Link(name, name), None]])
    page = StudyPage(
        name, name, verdict=Judgement("weak", name, [name]), findings=[name], legend=table,
        variants=table, costs=table, comparisons=table, labels=table, problems=table, plots=[], worst=None, networks=[], notes=[name], files=[Link(name, name)],
    )  # fmt: skip
    write_page(tmp_path / "page.html", "study.html", page)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not reached(text)
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert '" onload="' not in text
    assert 'href="javascript:' not in text
    assert ">49<" not in text


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_cell_is_computed_by_no_spreadsheet(name: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ["case", name], [[name, 1], ["-1.5", "+2"]])
    content = (tmp_path / "t.csv").read_bytes().decode()
    assert not reached(content)
    for line in content.splitlines():
        for cell in line.replace('"', "").split(","):
            assert not cell.startswith(("=", "@")) or "," in name
            assert not cell.startswith(("+", "-")) or cell in ("-1.5", "+2")
    rows = read_table(tmp_path / "t.csv")
    assert rows[0] == {"case": visible(name), visible(name): "1"}
    assert rows[1]["case"] == "-1.5"


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=8), min_size=2, max_size=2, unique_by=visible), st.text(max_size=20)
)
def test_a_table_reads_back(header: list[str], cell: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        write_table(file, header, [[cell, 0.5]])
        expected = dict(zip(map(visible, header), [visible(cell), "0.5"], strict=True))
        assert read_table(file) == [expected]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("terminal", [True, False])
def test_the_terminal_shows_it_as_text(
    name: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None, width=200)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    # pytest's own record of the log could not be sent between processes
    monkeypatch.setattr(logging.getLogger("segpipe"), "propagate", False)
    with logged_to(tmp_path / "run.log"):
        show_table(name, [name, "n"], [[name, "1"]])
        logging.getLogger("segpipe").info("%s: done", name)
    log = (tmp_path / "run.log").read_text(encoding="utf-8")
    for text in (out.getvalue(), log):
        assert not reached(text)
        assert visible(name) in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_encoding_that_lacks_a_letter_ends_nothing(encoding: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "predict.py", "checkpoint=肝臓.ckpt", "input=x", "output=y"],
        env={"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        timeout=280,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


UNREAD = """
import logging, sys
from pathlib import Path
from segpipe.terminal import TerminalHandler, show_table

log = logging.getLogger("segpipe")
log.addHandler(TerminalHandler())
log.setLevel(logging.INFO)
for number in range(20_000):
    log.info("line %d", number)
show_table("volumes", ["scan"], [["a"]])
Path(sys.argv[1]).touch()
"""


def test_output_that_nobody_reads_any_more_ends_nothing(tmp_path: Path) -> None:
    """As behind `| head -1`."""
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD, tmp_path / "done"],
        env={"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert (tmp_path / "done").is_file()


def test_what_a_launcher_of_hydra_says_is_indented_with_spaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for logger in ("hydra_plugins.hydra_joblib_launcher", "segpipe"):
        record = logging.LogRecord(logger, logging.INFO, "", 0, "\t#0 : seed=0", None, None)
        TerminalHandler().emit(record)
    assert capsys.readouterr().out == "  #0 : seed=0\n\\t#0 : seed=0\n"


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\udcff" not in name], ids=ascii)
def test_a_figure_shows_it_as_text(name: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    draw_overlay(image, mask, None, (1.0, 1.0, 1.0), [name], name, tmp_path / "o.png")
    assert (tmp_path / "o.png").stat().st_size > 1000


def test_markdown_keeps_its_columns() -> None:
    name = "a|b\n[x](javascript:1)<b>"
    lines = markdown_table(Table("t", [Column("case"), Column(name)], [[name, name]]))
    assert len(lines) == 3
    for line in (lines[0], lines[2]):
        assert line.replace(r"\|", "").count("|") == 3
    assert "<b>" not in lines[2]


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\x00b", "../a", "a/../../b", "/etc/x", "", "x" * 250, "ü" * 120, "a\x1b[2Jb", "."],
)
def test_a_name_that_no_file_should_have_is_refused(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize(
    "name", ["case_1", "sub-01/anat/T1", "Müller, Anna [2]", "肝臓", "=1+1", "x" * 200]
)
def test_other_names_are_fine(name: str) -> None:
    assert name_fault(name) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"{",
        b"\xff\xfe",
        b'{"scans": [{"name": "../../x"}]}',
        b'{"scans": [{"name": "a", "files": {"../../x": "1"}}]}',
        b'{"scans": [{"name": "a", "files": {"/etc/passwd": "1"}}]}',
        b'{"scans": [{"name": "a"}, {"name": "a"}]}',
        b'{"scans": [{"name": 3}]}',
        b'{"scans": [{"name": "a", "seconds": [1]}]}',
        b'{"scans": [{"name": "a", "voxels": "many"}]}',
        b'{"scans": [{"name": "a", "scores": [1]}]}',
        b'{"scans": [{"name": "a", "scores": [{"case": "a"}]}]}',
        b'{"scans": [{"name": "a", "ids": [1.5]}]}',
        b'{"scans": {"a": 1}}',
    ],
)
def test_a_damaged_manifest_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"manifest.json: .*") as caught:
        RecordStore(tmp_path)
    assert "\n" not in str(caught.value)


LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 10}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "a: " + "[" * 5000, LAUGHS, "a: &a [*a]", "1: 2", "a: !!python/object:os.system x",
             "a: " + "9" * 5000, "\x00", "x" * 5_000_000]
)  # fmt: skip
def test_a_damaged_yaml_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.plain.MOST_VALUES", 20_000)  # the usual limit takes a minute
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"plan.yaml: .*") as caught:
        read_yaml(tmp_path / "plan.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        _ = RunRecord(tmp_path).plan


@pytest.mark.parametrize(
    "content",
    ["case\na,b\n", "case,label\n\x00", "x\n" + "y" * 200_000, "case,label,dice\na,b,high\n"],
)
def test_a_damaged_table_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "validation.csv").write_text(content)
    with pytest.raises(DataError, match=r"validation.csv: .*") as caught:
        _ = RunRecord(tmp_path).scores
    assert "\n" not in str(caught.value)


def test_an_output_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file/below", Path("/proc/none")):
        with pytest.raises(ConfigError, match="cannot be written to .*; choose another folder"):
            make_folder(path)
    assert (tmp_path / "file").read_text() == "mine"
    make_folder(tmp_path / "new/folder")
    assert list((tmp_path / "new/folder").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_log_that_cannot_be_opened_is_one_line(
    make: Callable[[Path], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("segpipe")
    make(tmp_path / "run.log")
    with logged_to(tmp_path / "run.log"):
        for number in range(3):
            log.warning("scan %d", number)
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "run.log: cannot be written (" in text]) == 1
    assert said.count("scan 2") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_log_that_cannot_be_written_is_one_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("segpipe")
    with logged_to(Path("/dev/full")):
        for number in range(3):
            log.warning("scan %d", number)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("/dev/full: cannot be written (No space left on device)") == 1
    assert "Traceback" not in capsys.readouterr().err
