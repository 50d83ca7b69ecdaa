"""Several calls that fill one folder at once: nothing is lost, and claimed scans are done once."""

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.batches import NAMES, options, write_scans

from segpipe.batch import predict_batch
from segpipe.errors import ConfigError
from segpipe.lock import GONE_S
from segpipe.prediction import calls as calls_module
from segpipe.prediction.calls import CALLS, Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.record_store import MANIFEST, RecordStore
from segpipe.prediction.scans import in_shard
from segpipe.signals import Stopped

NOBODY = 2**22 + 1  # a number that no process has


@pytest.fixture
def eight(tmp_path: Path) -> Path:
    return write_scans(tmp_path)


def forked(work: Callable[[], int]) -> int:
    """Return the process id of a child that does some work and ends with its status."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        status = work()
    finally:
        os._exit(status)


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def listed(output: Path) -> list[str]:
    return [row["name"] for row in json.loads((output / MANIFEST).read_text())["scans"]]


def new_scans(text: str) -> list[int]:
    """Return how many scans each call of a log has done itself."""
    return [int(number) for number in re.findall(r"(\d+) new,", text)]


@pytest.mark.parametrize("total", [1, 2, 7])
def test_each_scan_is_in_one_shard_whatever_else_there_is(total: int) -> None:
    scans = [Scan(f"case {number}", (Path("x.nii"),)) for number in range(60)]
    parts = [in_shard(scans, f"{number + 1}/{total}") for number in range(total)]
    assert sorted(scan.name for part in parts for scan in part) == sorted(s.name for s in scans)
    assert in_shard(scans[::3], f"1/{total}") == [scan for scan in scans[::3] if scan in parts[0]]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_cannot_be_is_refused(tmp_path: Path, shard: str) -> None:
    with pytest.raises(ConfigError, match="shard"):
        options(tmp_path, shard=shard)


def test_two_shards_at_once_lose_nothing(eight: Path) -> None:
    children = []
    for shard in ("1/2", "2/2"):
        asked = options(eight, shard=shard)
        children.append(forked(lambda asked=asked: predict_batch(asked)))
    assert list(map(status_of, children)) == [0, 0]
    assert listed(eight / "out") == NAMES
    assert len((eight / "out/predictions.csv").read_text().splitlines()) == 9


def test_a_killed_call_leaves_its_scans_to_the_other_and_none_is_done_twice(
    eight: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("segpipe.batch.POLL_S", 0.05)
    caplog.set_level("INFO", logger="segpipe")
    asked = options(eight, claim=True)
    usual = Predictor.segment

    def slowly(self: Predictor, *given: Any) -> Any:
        time.sleep(0.1)  # else the child might be done before it is killed
        return usual(self, *given)

    monkeypatch.setattr(Predictor, "segment", slowly)
    child = forked(lambda: predict_batch(asked))
    while len(list((eight / "out").glob("*.nii.gz"))) < 2:
        time.sleep(0.002)
    os.kill(child, 9)
    assert status_of(child) == -9
    settled = len(RecordStore(eight / "out").records)
    assert predict_batch(asked) == 0
    assert new_scans(caplog.text) == [8 - settled]
    assert listed(eight / "out") == NAMES
    assert not list((eight / "out/.segpipe/claims").iterdir())


def test_two_calls_with_claims_share_the_scans(
    eight: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("segpipe.batch.POLL_S", 0.05)
    asked = options(eight, claim=True)

    def counted() -> int:
        found = []
        monkeypatch.setattr("segpipe.batch.show_batch", lambda outcomes, *_: found.append(outcomes))
        assert predict_batch(asked) == 0
        (tmp_path / f"new-{os.getpid()}").write_text(str(len(found[0].new)))
        return 0

    children = [forked(counted), forked(counted)]
    assert list(map(status_of, children)) == [0, 0]
    assert sum(int(file.read_text()) for file in tmp_path.glob("new-*")) == 8
    assert listed(eight / "out") == NAMES


def sign_of(output: Path, name: str, **changed: object) -> Path:
    """Write the sign of another call."""
    facts = {"host": "elsewhere", "pid": 7, "since": "2026-01-01", "settings": "x", **changed}
    file = output / CALLS / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts))
    return file


def test_a_claim_ends_with_its_call_or_after_a_long_silence(tmp_path: Path) -> None:
    mine = Calls(tmp_path, "x")
    claims = tmp_path / calls_module.CLAIMS
    far = sign_of(tmp_path, "far.json")
    here = sign_of(tmp_path, "here.json", host=socket.gethostname(), pid=NOBODY)
    claims.mkdir()
    for name, call in (("a", far.name), ("b", here.name), ("c", "ended.json")):
        (claims / calls_module.key_of(name)).write_text(call)
    assert [mine.claim(name) for name in "abcd"] == [False, True, True, True]
    then = time.time() - GONE_S - 1
    os.utime(far, (then, then))
    assert mine.claim("a")
    assert mine.others() == []
    assert not far.exists()


def test_who_else_is_there_is_said(eight: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="segpipe")
    mine = Calls(eight / "out", "x", shares=False)
    sign_of(eight / "out", "far.json")
    with mine.joined():
        assert "process 7 on elsewhere has worked in it since 2026-01-01" in caplog.text
        assert "claim=true or shard=I/N" in caplog.text
    assert not (eight / "out" / CALLS / mine.name).exists()


def test_a_call_with_other_options_waits_or_goes_elsewhere(eight: Path) -> None:
    sign_of(eight / "out", "far.json")
    with pytest.raises(ConfigError, match="process 7 on elsewhere has written masks into it"):
        predict_batch(options(eight))
    assert not list((eight / "out").glob("*.nii.gz"))


def test_a_nightly_call_tells_new_from_known(eight: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="segpipe")
    for name in NAMES[3:]:
        (eight / f"in/{name}.nii.gz").unlink()
    (eight / "in/bad.nii.gz").write_text("no scan")
    assert predict_batch(options(eight)) == 3
    assert "3 new, 0 unchanged, 1 failed, 0 known failures" in caplog.text
    caplog.clear()
    (eight / "in/later.nii.gz").write_bytes((eight / "in/case_00.nii.gz").read_bytes())
    assert predict_batch(options(eight)) == 0
    assert "1 new, 3 unchanged, 1 known failure" in caplog.text
    assert "failed: " not in caplog.text
    assert predict_batch(options(eight, strict=True)) == 3
    (eight / "in/bad.nii.gz").write_text("no scan, in other words")
    assert predict_batch(options(eight)) == 3


def test_what_the_machine_lacked_is_tried_again(
    eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("segpipe.engines.worker.write_outputs", lacking)
    assert predict_batch(options(eight)) == 3
    monkeypatch.undo()
    assert predict_batch(options(eight)) == 0
    assert len(list((eight / "out").glob("*.nii.gz"))) == 8


def test_sigterm_while_others_hold_the_rest_ends_at_once(
    eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call waits for a scan that a live call on another machine has claimed."""
    mine = Calls(eight / "out", "")
    sign_of(eight / "out", "far.json", settings="")
    claims = eight / "out" / calls_module.CLAIMS
    claims.mkdir()
    for name in NAMES:
        (claims / calls_module.key_of(name)).write_text("far.json")
    monkeypatch.setattr("segpipe.batch.POLL_S", 0.01)
    looked: list[str] = []
    usual = Calls.claim

    def counted(self: Calls, name: str) -> bool:
        looked.append(name)
        if len(looked) == 20:
            raise Stopped(15)
        return usual(self, name)

    monkeypatch.setattr(Calls, "claim", counted)
    with pytest.raises(Stopped):
        predict_batch(options(eight, claim=True))
    assert mine.others()
    assert not list((eight / "out").glob("*.nii.gz"))
