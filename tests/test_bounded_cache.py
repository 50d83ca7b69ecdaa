"""A cache with a limit: the oldest entries go first, and never one that a process uses."""

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from support.plans import case, plan

from segpipe import bounded_cache
from segpipe.bounded_cache import GIB, USERS, Usage, keep, make_room
from segpipe.data import cache
from segpipe.data.prepared_case import prepare_all
from segpipe.files import PART
from segpipe.lock import GONE_S

SIZE = 1000  # bytes of an entry


def key(letter: str) -> str:
    """Return a name such as entries have, of one letter."""
    return 32 * letter


def fill(folder: Path, *names: str) -> None:
    """Make entries; the first is the oldest."""
    for number, name in enumerate(names):
        entry = folder / key(name)
        entry.mkdir(parents=True)
        (entry / "a.npy").write_bytes(bytes(SIZE))
        os.utime(entry, (number + 1, number + 1))


def left(folder: Path) -> list[str]:
    return sorted(path.name[0] for path in folder.iterdir() if path.name != USERS)


def entries_gib(number: int) -> float:
    return (number * SIZE + SIZE // 2) / GIB


def forked(work: Callable[[], None]) -> int:
    """Return the process id of a child that does some work and ends well only where that does."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()  # pytest shows it with the failure of the parent
    finally:
        os._exit(status)


def test_the_oldest_go_first_and_only_as_many_as_must(tmp_path: Path) -> None:
    fill(tmp_path, "d", "c", "b", "a")
    assert make_room(tmp_path, entries_gib(4)) == 0
    assert left(tmp_path) == ["a", "b", "c", "d"]
    assert make_room(tmp_path, entries_gib(3)) == 0
    assert left(tmp_path) == ["a", "b", "c"]
    assert make_room(tmp_path, entries_gib(3), coming=2 * SIZE) == 0
    assert left(tmp_path) == ["a"]


def test_folders_of_others_stay(tmp_path: Path) -> None:
    """As where a disk for everything is given as the cache."""
    fill(tmp_path, "b", "a")
    (tmp_path / "zebra").mkdir()
    (tmp_path / "zebra/scan.nii").write_bytes(bytes(SIZE))
    os.utime(tmp_path / "zebra", (0, 0))
    assert make_room(tmp_path, 0.0) == 0
    assert left(tmp_path) == ["z"]


def test_what_was_used_lately_is_not_the_oldest(tmp_path: Path) -> None:
    fill(tmp_path, "d", "c", "b")
    usage = Usage(tmp_path)
    usage.add([key("d")])
    usage.end()
    make_room(tmp_path, entries_gib(1))
    assert left(tmp_path) == ["d"]


def test_what_this_process_uses_stays_and_the_excess_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "d", "c", "b", "a")
    keep(tmp_path, [key("d"), key("c")])
    assert make_room(tmp_path, entries_gib(0)) == 2 * SIZE - SIZE // 2
    assert left(tmp_path) == ["c", "d"]
    keep(tmp_path, [key("c")])
    make_room(tmp_path, entries_gib(0))
    assert left(tmp_path) == ["c"]


def test_what_another_process_uses_stays_until_it_is_gone(tmp_path: Path) -> None:
    fill(tmp_path, "b", "a")

    def use() -> None:
        keep(tmp_path, [key("b")])
        time.sleep(60)

    child = forked(use)
    while not list((tmp_path / USERS).glob("*.json")) or not bounded_cache._used(tmp_path):
        time.sleep(0.01)
    make_room(tmp_path, 0.0)
    assert left(tmp_path) == ["b"]
    os.kill(child, 9)
    os.waitpid(child, 0)
    make_room(tmp_path, 0.0)
    assert left(tmp_path) == []
    assert list((tmp_path / USERS).iterdir()) == []


def test_a_process_of_another_machine_is_gone_after_a_long_silence(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    sign = tmp_path / USERS / "far-7-0.json"
    sign.parent.mkdir()
    sign.write_text(json.dumps({"host": "far", "pid": os.getpid(), "entries": [key("a")]}))
    make_room(tmp_path, 0.0)
    assert left(tmp_path) == ["a"]
    silent = time.time() - GONE_S - 1
    os.utime(sign, (silent, silent))
    make_room(tmp_path, 0.0)
    assert left(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"entries": 3, "host": "far"}'])
def test_a_damaged_sign_stops_nothing(tmp_path: Path, content: str) -> None:
    fill(tmp_path, "a")
    (tmp_path / USERS).mkdir()
    (tmp_path / USERS / "far-7-0.json").write_text(content)
    make_room(tmp_path, 0.0)
    assert left(tmp_path) == []


def test_an_entry_that_a_process_takes_at_the_same_moment_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a")
    answers = iter([set[str](), {key("a")}])
    monkeypatch.setattr(bounded_cache, "_used", lambda _: next(answers))
    make_room(tmp_path, 0.0)
    assert left(tmp_path) == ["a"]
    assert (tmp_path / key("a") / "a.npy").stat().st_size == SIZE


def test_a_child_that_ends_does_not_give_up_what_its_parent_uses(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    keep(tmp_path, [key("a")])
    child = forked(bounded_cache._end_all)
    assert os.waitpid(child, 0)[1] == 0
    make_room(tmp_path, 0.0)
    assert left(tmp_path) == ["a"]


def test_the_cases_of_earlier_runs_make_room_for_those_of_this_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [case(tmp_path, seed, shape=(40, 40, 40)) for seed in range(3)]
    folder = tmp_path / "cache"
    (first,) = prepare_all(cases[:1], plan(), folder)
    size = sum(file.stat().st_size for file in first.iterdir())
    limit_gib = 2.5 * size / GIB
    (second,) = prepare_all(cases[1:2], plan(), folder, limit_gib)
    assert first.is_dir()
    os.utime(second, (1, 1))
    prepare_all([cases[0], cases[2]], plan(), folder, limit_gib)
    assert first.is_dir()
    assert not second.exists()
    assert "exceeds" not in caplog.text
    prepare_all(cases, plan(), folder, limit_gib)
    assert len(left(folder)) == 3
    assert "what is in use exceeds data.cache_gib=" in caplog.text


def test_an_entry_that_another_process_finishes_at_that_moment_is_none_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / f"{PART}old"
    old.mkdir()
    os.utime(old, (1, 1))
    monkeypatch.setattr(Path, "glob", lambda *_: [tmp_path / f"{PART}finished", old])
    cache.remove_abandoned(tmp_path)
    assert not old.exists()


def test_several_processes_build_one_cache_at_once(tmp_path: Path) -> None:
    cases = [case(tmp_path, seed) for seed in range(4)]
    folder = tmp_path / "cache"

    def build() -> None:
        entries = prepare_all(cases, plan(), folder, 1.0)
        assert all(map(cache.is_whole, entries))

    children = [forked(build) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert all(map(cache.is_whole, prepare_all(cases, plan(), folder)))
    assert len(left(folder)) == 4
