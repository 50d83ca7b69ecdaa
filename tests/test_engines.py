"""Several workers of one call: whichever is lost, every scan is done once, with the same records."""

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.batches import NAMES, content, options, write_scans
from support.commands import command

from segpipe.batch import predict_batch
from segpipe.data.prepare import PreparedScan, prepare_scan
from segpipe.device import Sharing, share_machine, usable_mib
from segpipe.engines import local
from segpipe.engines.board import Board
from segpipe.engines.desk import LOSSES, Desk
from segpipe.engines.events import Event, Started
from segpipe.engines.serving import Exchange, Post, serve
from segpipe.errors import BatchInterruptedError, ConfigError, DataError
from segpipe.plan import Plan
from segpipe.prediction.calls import CALLS
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.record_store import RecordStore
from segpipe.processes import HOST
from segpipe.signals import Stopped


@pytest.fixture
def eight(tmp_path: Path) -> Path:
    return write_scans(tmp_path)


def scans(number: int) -> list[Scan]:
    return [Scan(f"s{index}", (Path(f"s{index}.nii"),)) for index in range(number)]


def names_of(taken: Sequence[Scan | None]) -> list[str | None]:
    return [scan and scan.name for scan in taken]


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forks of this process, which start at once and have what it has patched."""
    monkeypatch.setattr(local, "get_context", lambda _: multiprocessing.get_context("fork"))


def test_two_scans_are_for_two_workers() -> None:
    desk = Desk(scans(2), 2)
    assert names_of([desk.next(0), desk.next(0), desk.next(1), desk.next(1)]) == [
        "s0",
        None,
        "s1",
        None,
    ]


def test_a_worker_takes_a_scan_ahead_where_there_are_enough() -> None:
    desk = Desk(scans(5), 2)
    assert names_of([desk.next(0), desk.next(0), desk.next(1), desk.next(1)]) == [
        "s0",
        "s1",
        "s2",
        "s3",
    ]
    desk.settle(0, "s0")
    assert names_of([desk.next(0), desk.next(0)]) == ["s4", None]


def test_scans_of_a_lost_worker_are_done_again_at_the_end_and_alone() -> None:
    desk = Desk(scans(4), 1)
    taken = [desk.next(0), desk.next(0)]
    again, given_up = desk.lose(0)
    assert names_of(again) == names_of(taken) == ["s0", "s1"]
    assert given_up == []
    assert names_of([desk.next(0), desk.next(0)]) == ["s2", "s3"]
    desk.settle(0, "s2")
    assert desk.next(0) is None, "s0 waits until nothing else is in hand"
    desk.settle(0, "s3")
    assert names_of([desk.next(0), desk.next(0)]) == ["s0", None]


def test_a_scan_that_costs_workers_is_given_up_and_its_neighbour_is_not() -> None:
    desk = Desk(scans(2), 1)
    desk.next(0)
    desk.next(0)
    lost: list[Scan] = []
    for _ in range(20):
        if desk.is_done:
            break
        scan = desk.next(0)
        if scan is not None and scan.name == "s1":
            desk.settle(0, "s1")
        else:
            lost += desk.lose(0)[1]
    assert names_of(lost) == ["s0"]
    assert desk.is_done


def test_after_an_interruption_nothing_is_handed_out() -> None:
    desk = Desk(scans(4), 2)
    desk.next(0)
    desk.close()
    assert desk.next(1) is None
    desk.lose(0)
    assert desk.is_done


@pytest.mark.usefixtures("forks")
def test_two_workers_make_the_records_that_one_makes(eight: Path) -> None:
    assert predict_batch(options(eight, output=str(eight / "alone"))) == 0
    assert predict_batch(options(eight, workers=2)) == 0
    assert content(eight / "out") == content(eight / "alone")
    assert (eight / "out/manifest.json").read_text().count('"name"') == 8
    assert list((eight / "out" / CALLS).iterdir()) == [], "all have left"
    assert not list((eight / "out/.segpipe/claims").iterdir())


@pytest.mark.usefixtures("forks")
def test_a_lost_worker_is_replaced(
    eight: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of the first ten scans that are begun ends its worker, in the middle of writing."""
    caplog.set_level("INFO", logger="segpipe")
    usual = Predictor.segment
    kills = eight / "kills"
    kills.touch()

    def segment(self: Predictor, *given: Any) -> Any:
        if kills.stat().st_size < 10:
            with kills.open("a") as file:
                file.write(".")
            (eight / f"out/.segpipe-part-{HOST}-{os.getpid()}-0-x.nii.gz").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, *given)

    monkeypatch.setattr(Predictor, "segment", segment)
    assert predict_batch(options(eight, workers=2)) == 0
    assert caplog.text.count("is lost (ended by SIGKILL, perhaps for want of memory)") == 10
    assert "8 new, 0 unchanged, 0 known failures" in caplog.text
    assert sorted(RecordStore(eight / "out").records) == NAMES
    assert not list((eight / "out").glob(".segpipe-part-*"))


@pytest.mark.usefixtures("forks")
def test_a_scan_that_ends_every_process_fails_alone(
    eight: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="segpipe")

    def deadly(images: Sequence[Path], plan: Plan, device: torch.device) -> PreparedScan:
        if images[0].name == "case_02.nii.gz":
            os._exit(9)
        return prepare_scan(images, plan, device=device)

    monkeypatch.setattr("segpipe.engines.worker.prepare_scan", deadly)
    assert predict_batch(options(eight, workers=2)) == 3
    records = RecordStore(eight / "out").records
    failed = [record for record in records.values() if record.failed]
    assert [record.name for record in failed] == ["case_02"]
    assert (
        f"{LOSSES} processes that computed it alone were lost (it ended with status 9)"
        in failed[0].reason
    )
    assert "7 new, 0 unchanged, 1 failed" in caplog.text
    monkeypatch.undo()
    assert predict_batch(options(eight)) == 0, "the next call tries it again"


@pytest.mark.usefixtures("forks")
def test_workers_that_never_begin_end_the_call(
    eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.engines.serving.open_worker", lambda *_: os._exit(7))
    with pytest.raises(
        DataError, match="workers end before they take a scan: it ended with status 7"
    ):
        predict_batch(options(eight, workers=2))


@pytest.mark.usefixtures("forks")
def test_what_a_worker_refuses_is_one_line_of_the_call(
    eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigError("backend=x: not on this machine")

    monkeypatch.setattr("segpipe.engines.serving.open_worker", refuse)
    with pytest.raises(ConfigError, match="backend=x: not on this machine"):
        predict_batch(options(eight, workers=2))


@pytest.mark.usefixtures("forks")
def test_a_full_disk_ends_all_workers(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segpipe.engines.worker.write_outputs", full)
    with pytest.raises(DataError, match="the disk is full"):
        predict_batch(options(eight, workers=2))
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("forks")
def test_termination_ends_all_workers_at_once(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers compute without end; the call gets the signal while it waits for them."""
    begun = eight / "begun"

    def endless(*_: object) -> None:
        begun.touch()
        while True:
            time.sleep(1)

    def ready(*given: Any) -> Any:
        if begun.exists():
            raise Stopped(signal.SIGTERM)
        return usual(*given)

    usual = local.Processes.ready
    monkeypatch.setattr(Predictor, "segment", endless)
    monkeypatch.setattr(local.Processes, "ready", ready)
    with pytest.raises(Stopped):
        predict_batch(options(eight, workers=2))
    assert multiprocessing.active_children() == []
    assert (eight / "out/index.html").is_file()


@pytest.mark.usefixtures("forks")
def test_ctrl_c_lets_each_worker_finish_what_it_has(
    eight: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="segpipe")

    def take(self: Board, event: Event) -> None:
        if isinstance(event, Started) and not pressed:
            pressed.append(True)
            press: Any = signal.getsignal(signal.SIGINT)  # no signal, which others would get too
            press(signal.SIGINT, None)
        usual(self, event)

    pressed: list[bool] = []
    usual = Board.take
    monkeypatch.setattr(Board, "take", take)
    with pytest.raises(BatchInterruptedError, match="of 8 scans are settled"):
        predict_batch(options(eight, workers=2))
    settled = sorted(RecordStore(eight / "out").records)
    assert 0 < len(settled) < 8
    assert [name for name in NAMES if (eight / f"out/{name}.nii.gz").exists()] == settled


def test_a_worker_ends_when_its_call_is_gone(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segpipe.engines.serving.share_machine", lambda *_: None)  # it is this one
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    post = Post(options(eight), "", 1, 1, 1)
    serve(post, Exchange(theirs.send, theirs.recv))
    assert not list((eight / "out" / CALLS).glob("*"))


def test_workers_share_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segpipe.device.SHARING", Sharing())
    cpu = torch.device("cpu")
    alone = usable_mib(cpu)
    before = torch.get_num_threads()
    share_machine(1, 4, 2)
    assert usable_mib(cpu) == pytest.approx(alone / 4)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("device", "workers", "devices"),
    [("auto", 3, ["cuda:0", "cuda:1", "cuda:0"]), ("cuda:1", 2, ["cuda:1", "cuda:1"])],
)
def test_workers_are_spread_over_the_gpus(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    workers: int,
    devices: list[str],
) -> None:
    found: list[Post] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(local, "Process", lambda _, post: found.append(post))
    asked = options(tmp_path, device=device, workers=workers)
    source = local.Processes(asked, "", workers, local.count_gpus(asked))
    for number in range(workers):
        source.start(number)
    assert [post.options.device for post in found] == devices
    assert {post.sharing_device for post in found} == {2}


def test_a_process_of_its_own_begins_with_what_it_is_told(eight: Path, tmp_path: Path) -> None:
    """Two real processes, as a user has them; one line for each scan, none from their opening."""
    done = command(
        "predict.py",
        f"checkpoint={eight}/some.ckpt",
        f"input={eight}/in",
        f"output={eight}/out",
        "device=cpu",
        "overlays=false",
        "workers=2",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "8 scans, 2 workers (cpu)" in done.stdout
    assert "8 of 8: case_0" in done.stdout
    assert sorted(RecordStore(eight / "out").records) == NAMES
