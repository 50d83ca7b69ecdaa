"""A network computes on the cores that a container allows and that other processes leave."""

from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.config import composed

from segpipe import control_groups, device, threads
from segpipe.planning.pace import Pace
from segpipe.threads import OtherLoad, fitting

CPU = torch.device("cpu")
Times = namedtuple("Times", ["user", "nice", "system", "idle", "steal"])


@pytest.mark.parametrize(
    ("most", "cores", "others", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.3, 2),
        (2, 2, 0.9, 1),
        (2, 2, 5.0, 1),
        (8, 8, 1.0, 7),
        (8, 8, 8.0, 4),  # the other one makes way, once this one computes on 4
        (4, 64, 30.0, 4),  # given fewer threads than there are cores, nobody is in its way
        (1, 1, 3.0, 1),
    ],
)
def test_threads_that_fit(most: int, cores: int, others: float, expected: int) -> None:
    assert fitting(most, cores, others) == expected


@given(st.integers(1, 256), st.floats(0, 300))
def test_there_are_never_more_threads_than_cores_and_never_fewer_than_half(
    cores: int, others: float
) -> None:
    found = fitting(cores, cores, others)
    assert max(1, cores // 2) <= found <= cores
    assert fitting(cores, cores, others + 1) <= found


@pytest.mark.parametrize("cores", [2, 3, 8, 64])
def test_two_trainings_come_to_share_a_machine(cores: int) -> None:
    first = second = cores
    for _ in range(4):
        second = fitting(cores, cores, float(first))
        first = fitting(cores, cores, float(second))
    assert first + second <= cores
    assert abs(first - second) <= 1


class Machine:
    """A machine of two cores, whose processes have used so many seconds of CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.busy = self.own = 0.0
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(threads, "count_cores", lambda: 2)
        monkeypatch.setattr(threads, "_allowed_cores", lambda: {0, 1})
        monkeypatch.setattr(psutil, "cpu_times", self.times)
        monkeypatch.setattr(psutil, "Process", lambda: self)

    def times(self, percpu: bool) -> list[Times]:
        assert percpu
        return [
            Times(self.busy, 0, 0, 7e3, 0),
            Times(0, 0, self.own, 9e3, 0),
            Times(9e9, 0, 0, 0, 0),
        ]

    def cpu_times(self) -> tuple[float, ...]:
        return self.own / 2, self.own / 4, self.own / 8, self.own / 8, 1e9  # the last is of waiting

    def children(self, recursive: bool) -> list[object]:
        return []

    def run(self, seconds: float, others: float, own: float) -> None:
        self.now += seconds
        self.busy += seconds * others
        self.own += seconds * own


def test_the_load_of_others_is_what_is_not_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    load = OtherLoad()
    machine.run(2.0, others=0.0, own=1.9)
    assert load.measure() == pytest.approx(0.0)
    machine.run(4.0, others=0.75, own=1.25)
    assert load.measure() == pytest.approx(0.75)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_a_neighbour_takes_a_thread_and_gives_it_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "segpipe")
    monkeypatch.delenv(threads.THREADS, raising=False)
    machine = Machine(monkeypatch)
    watching = threads._Threads()
    found = []
    for others in (0.0, 1.0, 1.0, 0.0):
        for _ in range(40):  # calls between two looks change nothing
            machine.run(threads.EVERY_S / 20, others, own=1.0)
            watching.fit()
        found.append(torch.get_num_threads())
    assert found == [2, 1, 1, 2]
    assert caplog.messages == [
        "other processes use 1.0 of the 2 cores: computing on 1 thread",
        "other processes use 0.0 of the 2 cores: computing on 2 threads",
    ]


@pytest.mark.usefixtures("two_threads")
def test_a_number_of_threads_that_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.THREADS, "2")
    machine = Machine(monkeypatch)
    watching = threads._Threads()
    machine.run(60.0, others=2.0, own=0.1)
    watching.fit()
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_run_beside_others_is_planned_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sweep's runs in one process, those that come later have fewer threads for a while."""
    monkeypatch.delenv(threads.THREADS, raising=False)
    machine = Machine(monkeypatch)
    monkeypatch.setattr(threads, "_threads", cache(threads._Threads))
    options = composed("trainer.max_time=00:00:10:00")
    alone = Pace.of(options, "float32", 1, 2)
    for _ in range(2):
        threads.fit_threads(CPU)
        machine.run(60.0, others=2.0, own=0.1)
    assert torch.get_num_threads() == 1
    assert Pace.of(options, "float32", 1, 2) == alone


def test_a_gpu_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_threads", lambda: pytest.fail("watches"))
    threads.fit_threads(torch.device("cuda"))


@pytest.mark.parametrize(
    ("line", "folder", "files", "expected"),
    [
        ("0::/pod", "pod", {"cpu.max": "200000 100000"}, 2),
        ("0::/pod/job", "pod", {"cpu.max": "350000 100000"}, 3),
        ("0::/", "", {"cpu.max": "50000 100000"}, 1),
        ("0::/pod", "pod", {"cpu.max": "max 100000"}, 64),
        ("3:cpu,cpuacct:/a", "cpu/a", {"cpu.cfs_quota_us": "400000", "cpu.cfs_period_us": "100000"}, 4),
        ("3:cpu,cpuacct:/a", "cpu/a", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 64),
    ],
)  # fmt: skip
def test_a_container_has_the_cores_that_its_group_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, folder: str, files: dict[str, str], expected: int
) -> None:  # fmt: skip
    (tmp_path / "own").write_text(f"9:pids:/x\n{line}\n")
    (tmp_path / "groups" / folder).mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "groups" / folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(control_groups, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(64)))
    assert device.count_cores() == expected
