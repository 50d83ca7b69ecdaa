"""`engine=ray`: actors make the records that this process makes, whichever of them is killed."""

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from support.batches import content, options, write_scans

from segpipe.batch import predict_batch
from segpipe.engines.ray_cluster import Actors, cores_for
from segpipe.errors import ConfigError
from segpipe.prediction.calls import CALLS
from segpipe.prediction.record_store import RecordStore

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="needs pip install 'segpipe[ray]'")
SLOW = """
import time
from segpipe.prediction.predictor import Predictor

usual = Predictor.segment

def segment(self, *given):
    time.sleep({seconds})
    return usual(self, *given)

Predictor.segment = segment
"""


@pytest.mark.parametrize(
    ("workers", "cores", "each"),
    [(2, [2], 1), (4, [8, 8, 8], 4), (3, [8, 8, 8], 8), (1, [16], 16), (9, [2, 2], 1)],
)
def test_workers_find_room_on_the_machines(workers: int, cores: list[int], each: int) -> None:
    assert cores_for(workers, cores, cores) == each


@pytest.mark.parametrize(
    ("device", "workers", "size", "gpu_share", "cores"),
    [("auto", "all", 3, 1.0, 4), ("auto", 6, 6, 0.5, 2), ("cpu", 2, 2, 0.0, 16)],
)
def test_each_actor_has_a_gpu_or_a_part_of_one(
    tmp_path: Path, device: str, workers: int | str, size: int, gpu_share: float, cores: int
) -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0}]
    actors = Actors(None, options(tmp_path, device=device, workers=workers), nodes)
    assert (actors.size, actors.gpu_share, actors.cores) == (size, gpu_share, cores)


def test_a_gpu_by_its_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the cluster chooses the GPU"):
        predict_batch(options(tmp_path, engine="ray", device="cuda:1"))


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="engine=ray: Ray is not installed: pip install"):
        predict_batch(options(tmp_path, engine="ray"))


def kill_workers(output: Path, kills: int, seconds: float, killed: list[int]) -> None:
    """Kill one of the workers a number of times, each time some seconds after it has begun."""
    own = f"-{os.getpid()}-"
    while len(killed) < kills:
        time.sleep(0.1)
        others = [file for file in (output / CALLS).glob("*.json") if own not in file.name]
        others = [file for file in others if int(file.name.split("-")[1]) not in killed]
        if len(others) < 2:
            continue
        time.sleep(seconds)
        victim = int(max(others, key=os.path.getmtime).name.split("-")[1])
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)


@needs_ray
@pytest.mark.parametrize(
    ("kills", "scans", "seconds"), [(1, 12, 0.5), pytest.param(10, 90, 2.0, marks=pytest.mark.slow)]
)
def test_killed_actors_lose_nothing(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    scans: int,
    seconds: float,
) -> None:
    caplog.set_level("INFO", logger="segpipe")
    names = [f"case_{number:03d}" for number in range(scans)]
    write_scans(tmp_path, names)
    assert predict_batch(options(tmp_path, output=str(tmp_path / "alone"))) == 0
    caplog.clear()
    (tmp_path / "slow.py").write_text(SLOW.format(seconds=seconds))
    asked = options(tmp_path, engine="ray", workers=2, extensions=[str(tmp_path / "slow.py")])
    killed: list[int] = []
    given = (tmp_path / "out", kills, seconds / 2, killed)
    threading.Thread(target=kill_workers, args=given, daemon=True).start()
    assert predict_batch(asked) == 0
    assert len(killed) == kills
    assert caplog.text.count("is lost (") == kills
    assert f"{scans} new, 0 unchanged, 0 known failures" in caplog.text
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    assert sorted(RecordStore(tmp_path / "out").records) == names
