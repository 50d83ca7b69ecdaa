"""Input and output at addresses: in memory, in a folder, and on a web server."""

import csv
import json
import logging
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import nibabel as nib
import numpy as np
import pytest
from support.remote import NAMES, cutting, options, predict, scan_bytes

from segpipe import remote
from segpipe.batch import predict_batch
from segpipe.config.compose import defaults
from segpipe.errors import ConfigError, DataError
from segpipe.prediction.remote_output import RECORD
from segpipe.prediction.remote_places import at_hand
from segpipe.remote import RemoteError, RemoteFile, RemoteFolder, full, is_address, plain

MEMORY = fsspec.filesystem("memory")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)
    yield
    MEMORY.store.clear()


@pytest.fixture
def scans() -> dict[str, bytes]:
    found = {name: scan_bytes(seed) for seed, name in enumerate(NAMES)}
    for name, content in found.items():
        MEMORY.pipe_file(f"/in/{name}.nii", content)
    return found


def paths() -> list[str]:
    return sorted(MEMORY.store)


def masks_below(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for file in folder.glob("*.nii.gz"):
        found[file.name] = np.asarray(nib.load(file).dataobj)  # type: ignore[attr-defined]
    return found


def local_masks(tmp_path: Path, scans: dict[str, bytes]) -> dict[str, np.ndarray]:
    """The masks of the same scans in a folder."""
    (tmp_path / "local").mkdir()
    for name, content in scans.items():
        (tmp_path / f"local/{name}.nii").write_bytes(content)
    asked = options(tmp_path, input=str(tmp_path / "local"), output=str(tmp_path / "masks"))
    assert predict_batch(asked) == 0
    return masks_below(tmp_path / "masks")


def download(prefix: str, folder: Path) -> Path:
    """Copy what lies in memory below a prefix."""
    for path in paths():
        if path.startswith(prefix):
            target = folder / path.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(MEMORY.cat_file(path))
    return folder


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://bucket/in", "s3://bucket/in"),
        (Path("s3://bucket/in"), "s3://bucket/in"),
        (Path("file:///data/in"), "file:///data/in"),
        (Path("abfs://box@me.dfs.core.windows.net/in"), "abfs://box@me.dfs.core.windows.net/in"),
    ],
)
def test_an_address_survives_being_a_path(given: object, expected: str) -> None:
    assert is_address(given)
    assert full(given) == expected


@pytest.mark.parametrize("given", ["scans", "/data/in", "C:/in", "a:b", "scans/*_T1.nii.gz", None])
def test_a_path_is_no_address(given: object) -> None:
    assert not is_address(given)


def test_masks_tables_page_and_records_are_those_of_a_folder(
    tmp_path: Path, scans: dict[str, bytes]
) -> None:
    expected = local_masks(tmp_path, scans)
    assert predict(tmp_path, input="memory://in", output="memory://out/a", overlays=True) == 0
    out = download("/out/a/", tmp_path / "out")
    found = masks_below(out)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    rows = json.loads((out / "manifest.json").read_text())["scans"]
    assert [row["name"] for row in rows] == NAMES
    assert [row["images"] for row in rows] == [[f"memory://in/{name}.nii"] for name in NAMES]
    with (out / "predictions.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"] * 3
    assert len([path for path in paths() if RECORD.search(path)]) == 3
    assert sorted(file.name for file in (out / "overlays").iterdir()) == [f"{n}.png" for n in NAMES]
    page = (out / "index.html").read_text()
    assert "Predictions in a" in page
    assert "memory://in" in page
    log = (out / "predict.log").read_text()
    assert "written to memory://out/a" in log
    for text in (page, log, json.dumps(rows)):
        assert "/segpipe-" not in text


def test_what_is_unchanged_is_neither_copied_nor_computed_again(
    tmp_path: Path, scans: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(tmp_path, input="memory://in", output="memory://out") == 0
    copied: list[str] = []
    fetch = RemoteFolder.fetch

    def counted(self: RemoteFolder, file: RemoteFile, target: Path) -> None:
        copied.append(file.name)
        fetch(self, file, target)

    monkeypatch.setattr(RemoteFolder, "fetch", counted)
    assert predict(tmp_path, input="memory://in", output="memory://out") == 0
    assert copied == []
    MEMORY.pipe_file("/in/case_1.nii", scan_bytes(9))
    MEMORY.rm_file("/out/case_2.nii.gz")
    assert predict(tmp_path, input="memory://in", output="memory://out") == 0
    assert copied == ["case_1.nii", "case_2.nii"]
    assert "/out/case_2.nii.gz" in paths()
    log = MEMORY.cat_file("/out/predict.log").decode()
    assert [line.partition("INFO ")[2] for line in log.splitlines() if " new," in line] == [
        "3 new, 0 unchanged, 0 known failures",
        "0 new, 3 unchanged, 0 known failures",
        "2 new, 1 unchanged, 0 known failures",
    ]


def test_shards_of_one_output_are_collected(tmp_path: Path, scans: dict[str, bytes]) -> None:
    for shard in ("1/2", "2/2"):
        assert predict(tmp_path, input="memory://in", output="memory://out", shard=shard) == 0
    MEMORY.rm_file("/out/predictions.csv")
    assert predict(tmp_path, input="memory://in", output="memory://out", collect=True) == 0
    table = MEMORY.cat_file("/out/predictions.csv").decode().splitlines()
    assert len(table) == 4
    MEMORY.rm_file("/out/case_0.nii.gz")
    assert predict(tmp_path, output="memory://out", collect=True) == 3


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("memory://in/case_1.nii", ["case_1"]),
        ("memory://in/*_[12].nii", ["case_1", "case_2"]),
        ("memory://in/list.txt", ["case_0", "case_3"]),
        ("memory://in/table.csv", ["x", "y"]),
    ],
)
def test_files_globs_lists_and_tables(
    tmp_path: Path, scans: dict[str, bytes], given: str, names: list[str]
) -> None:
    MEMORY.pipe_file("/in/deep/case_3.nii", scan_bytes(3))
    MEMORY.pipe_file("/in/list.txt", b"case_0.nii\ndeep/case_3.nii\n")
    MEMORY.pipe_file("/in/table.csv", b"case,image\nx,case_0.nii\ny,deep/case_3.nii\n")
    assert predict(tmp_path, input=given, output=str(tmp_path / "out")) == 0
    rows = json.loads((tmp_path / "out/manifest.json").read_text())["scans"]
    assert [row["name"] for row in rows] == names


def test_folders_inside_are_searched_where_asked_and_masks_inside_are_no_scans(
    tmp_path: Path, scans: dict[str, bytes]
) -> None:
    MEMORY.pipe_file("/in/deep/case_3.nii", scan_bytes(3))
    asked: dict[str, Any] = {"input": "memory://in", "output": "memory://in/masks"}
    assert predict(tmp_path, **asked, recursive=True) == 0
    assert "/in/masks/deep/case_3.nii.gz" in paths()
    assert predict(tmp_path, **asked, recursive=True) == 0
    rows = json.loads(MEMORY.cat_file("/in/masks/manifest.json"))["scans"]
    assert len(rows) == 4


def test_a_pair_of_files_is_copied_as_a_whole(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (20, 16, 8)).astype(np.int16)
    header = "ObjectType = Image\nNDims = 3\nDimSize = 20 16 8\nElementType = MET_SHORT\n"
    header += "ElementSpacing = 1 1 2\nElementByteOrderMSB = False\nElementDataFile = a.raw\n"
    MEMORY.pipe_file("/in/a.mhd", header.encode())
    MEMORY.pipe_file("/in/a.raw", voxels.tobytes(order="F"))
    assert predict(tmp_path, input="memory://in", output=str(tmp_path / "out")) == 0
    assert list(masks_below(tmp_path / "out")) == ["a.nii.gz"]


def test_one_bad_scan_fails_alone_and_its_address_is_named(
    tmp_path: Path, scans: dict[str, bytes]
) -> None:
    MEMORY.pipe_file("/in/case_1.nii", scans["case_1"][:700])
    assert predict(tmp_path, input="memory://in", output="memory://out") == 3
    rows = json.loads(MEMORY.cat_file("/out/manifest.json"))["scans"]
    assert [bool(row["reason"]) for row in rows] == [False, True, False]
    assert rows[1]["reason"].startswith("memory://in/case_1.nii: ")
    assert predict(tmp_path, input="memory://in", output="memory://out") == 0  # it is known


@pytest.mark.parametrize("place", ["in", "out"])
def test_a_connection_that_fails_now_and_then_is_tried_again(
    tmp_path: Path, scans: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    failures = {"in": "get_file", "out": "put_file"}
    method = getattr(type(MEMORY), failures[place])
    calls = iter(range(1000))

    def flaky(self: object, *given: object, **named: object) -> object:
        if next(calls) % 3 < 2:
            raise ConnectionError("cut")
        return method(self, *given, **named)

    monkeypatch.setattr(type(MEMORY), failures[place], flaky)
    assert predict(tmp_path, input="memory://in", output="memory://out") == 0
    assert next(calls) > 8
    assert len([path for path in paths() if path.endswith(".nii.gz")]) == 3


def test_a_scan_that_never_arrives_fails_alone_and_is_tried_by_the_next_call(
    tmp_path: Path, scans: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = type(MEMORY).get_file

    def cut(self: object, path: str, target: str, **named: object) -> object:
        if "case_1" in path:
            Path(target).write_bytes(scans["case_1"][:500])
            return None
        return method(self, path, target, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(MEMORY), "get_file", cut)
        assert predict(tmp_path, input="memory://in", output="memory://out") == 3
    rows = json.loads(MEMORY.cat_file("/out/manifest.json"))["scans"]
    assert "6 attempts have failed (500 of 5472 bytes have arrived)" in rows[1]["reason"]
    assert "/out/case_1.nii.gz" not in paths()
    assert predict(tmp_path, input="memory://in", output="memory://out") == 0
    assert "/out/case_1.nii.gz" in paths()


def test_a_mask_that_cannot_be_sent_leaves_no_record_that_says_it_is_done(
    tmp_path: Path, scans: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = type(MEMORY).put_file

    def refuse(self: object, source: str, path: str, **named: object) -> object:
        if path.endswith("case_1.nii.gz"):
            raise ConnectionError("cut")
        return method(self, source, path, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(MEMORY), "put_file", refuse)
        assert predict(tmp_path, input="memory://in", output="memory://out") == 3
    assert predict(tmp_path, input="memory://in", output="memory://out") == 0
    assert "/out/case_1.nii.gz" in paths()


def test_where_uploads_may_stay_half_done_files_are_renamed_once_they_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RemoteFolder(f"file://{tmp_path}/far", "output")
    (tmp_path / "mask").write_bytes(b"whole")
    put = type(folder.client).put_file

    def half(self: object, source: str, path: str, **_: object) -> None:
        Path(path).write_bytes(b"wh")
        raise ConnectionError("cut")

    with monkeypatch.context() as patched:
        patched.setattr(type(folder.client), "put_file", half)
        with pytest.raises(RemoteError, match=r"far/a/mask: 6 attempts have failed \(cut\)"):
            folder.send(tmp_path / "mask", "a/mask")
    assert list((tmp_path / "far/a").iterdir()) == []
    assert type(folder.client).put_file is put
    folder.send(tmp_path / "mask", "a/mask")
    assert (tmp_path / "far/a/mask").read_bytes() == b"whole"
    assert [file.name for file in (tmp_path / "far/a").iterdir()] == ["mask"]


def test_a_folder_given_by_its_address_goes_on_where_it_stopped(
    tmp_path: Path, scans: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="segpipe")
    expected = local_masks(tmp_path, scans)
    asked = {"input": f"file://{tmp_path}/local", "output": f"file://{tmp_path}/far"}
    assert predict(tmp_path, **asked) == 0
    assert predict(tmp_path, **asked) == 0
    assert "0 new, 3 unchanged" in caplog.text
    assert masks_below(tmp_path / "far").keys() == expected.keys()


def test_the_cache_of_scans_keeps_its_limit(tmp_path: Path, scans: dict[str, bytes]) -> None:
    kept = tmp_path / "kept"
    size = len(scans["case_0"])
    wide = {"cache": str(kept), "cache_gib": 1.0}
    narrow = {"cache": str(kept), "cache_gib": 0.5 * size / 2**30}
    assert predict(tmp_path, input="memory://in", output="memory://a", remote=wide) == 0
    assert len(list(kept.glob("[0-9a-f]*"))) == 3
    MEMORY.pipe_file("/in/case_1.nii", scan_bytes(9))
    assert (
        predict(tmp_path, input="memory://in/case_1.nii", output="memory://a", remote=narrow) == 0
    )
    assert len(list(kept.glob("[0-9a-f]*"))) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output": "memory://out", "claim": True}, "claim=true: a remote output has no claims"),
        ({"output": "memory://in"}, "masks would replace scans"),
        ({"output": "https://host/out"}, "a web server takes no files"),
        ({"output": "memory://out", "input": "memory://none"}, "there is no file"),
        ({"output": "memory://out", "input": "nowhere://x"}, "nowhere"),
        ({"output": "memory://out", "input": "s3://b/zip::x"}, "without ::"),
        ({"output": "memory://out", "input": "memory://in/labels.csv"}, "label maps of a remote"),
        (
            {"output": "memory://out", "page": defaults("predict")["page"] | {"viewer": True}},
            "page.viewer",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path, scans: dict[str, bytes], changed: dict[str, object], message: str
) -> None:
    MEMORY.pipe_file("/in/labels.csv", b"case,image,label\nx,case_0.nii,case_1.nii\n")
    before = paths()
    with pytest.raises(ConfigError, match=message) as raised:
        predict(tmp_path, **{"input": "memory://in", **changed})
    assert "\n" not in str(raised.value)
    assert "/segpipe-" not in str(raised.value)
    assert paths() == before


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"gs://.*pip install 'segpipe\[remote\]'"):
        RemoteFolder("gs://bucket/in", "input")


SECRET = "hunter2"


@pytest.mark.parametrize(
    "address",
    [
        f"s3://key:{SECRET}@bucket/in",
        f"https://me:{SECRET}@host/in",
        f"https://{SECRET}@host/in",
        f"https://host/a.nii?X-Amz-Signature={SECRET}",
    ],
)
def test_a_key_in_an_address_is_refused_and_never_shown(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError) as raised:
        predict(tmp_path, input=address, output=str(tmp_path / "out"))
    assert SECRET not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [f"404, url='https://host/a.nii?sig={SECRET}&x=1'", f"cannot reach https://me:{SECRET}@host/a"],
)
def test_a_key_in_the_words_of_a_client_is_left_out(text: str) -> None:
    assert SECRET not in plain(ValueError(text))
    assert "https://host/a" in plain(ValueError(text))


def test_names_that_would_leave_the_folder_are_not_scans(
    tmp_path: Path, scans: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RemoteFolder.files

    def with_others(self: RemoteFolder, depth: int | None = None) -> Iterator[RemoteFile]:
        yield from files(self, depth)
        yield RemoteFile("../../escaped.nii", 3, "1")
        yield RemoteFile("a\nb.nii", 3, "1")

    monkeypatch.setattr(RemoteFolder, "files", with_others)
    asked = options(tmp_path, input="memory://in", output=str(tmp_path / "out"), recursive=True)
    with at_hand(asked) as (local, _):
        assert local.input is not None
        found = sorted(path.name for path in Path(local.input).parent.parent.rglob("*.nii"))
    assert found == [f"{name}.nii" for name in NAMES]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[int]:
    """The port of a web server of the folder `web`."""
    pytest.importorskip("aiohttp")
    (tmp_path / "web").mkdir()
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_a_web_server_whose_answer_is_cut_is_asked_again(tmp_path: Path, web: int) -> None:
    content = scan_bytes(0, (64, 64, 16))
    (tmp_path / "web/case.nii").write_bytes(content)
    (tmp_path / "local").mkdir()
    (tmp_path / "local/case.nii").write_bytes(content)
    with cutting(web, after=len(content) // 2) as proxy:
        proxy.cuts = 2
        folder = RemoteFolder(f"http://127.0.0.1:{proxy.port}", "input")
        folder.fetch(folder.file("case.nii"), tmp_path / "copy.nii")
        assert proxy.was_cut == 2
    assert (tmp_path / "copy.nii").read_bytes() == content
    address = f"http://127.0.0.1:{web}/case.nii"
    assert predict(tmp_path, input=address, output=str(tmp_path / "out")) == 0
    assert predict(tmp_path, input=str(tmp_path / "local"), output=str(tmp_path / "b")) == 0
    ours = masks_below(tmp_path / "out")
    theirs = masks_below(tmp_path / "b")
    assert np.array_equal(ours["case.nii.gz"], theirs["case.nii.gz"])


def test_a_file_that_a_web_server_lacks_is_a_line(tmp_path: Path, web: int) -> None:
    address = f"http://127.0.0.1:{web}/none.nii"
    with pytest.raises(DataError, match=r"none\.nii: "):
        predict(tmp_path, input=address, output=str(tmp_path / "out"))
