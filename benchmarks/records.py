"""A batch of very many scans by two processes that share them: the cost per scan, and what a kill does.

    python benchmarks/records.py                    # 1,000 and 10,000 scans
    python benchmarks/records.py --scans 100000
    python benchmarks/records.py --scans 1000 --kills 20
    python benchmarks/records.py --scans 100000 --done 98000    # of which so many are done already

The scans are volumes of 8x8x8 and the network is left out (every mask is empty), so that what is measured is all that
a batch does beside the network: reading, hashing, writing, reading back, records, tables and page. With `--kills` one
of the two processes is killed (SIGKILL) that many times, each time at random and replaced by a new one. With `--done` the
first scans have masks and records of an earlier call, so that the cost of a scan beside very many others is known without
computing them all.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np

WORKERS = 2


@dataclass
class Usage:
    """What the processes of a batch took.

    Attributes:
        cpu_s: seconds of CPU of all of them.
        wall_s: from the first start to the last end.
        kills: how many were killed.
        memory_mib: largest resident memory of one of them, the libraries included.
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    kills: int = 0
    memory_mib: float = 0.0


def main() -> None:
    """Print a line for each number of scans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--done", type=int, default=0, help="of the scans, by an earlier call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        sys.exit(work(asked.worker))
    print("  scans   done  kills  ms of CPU a new scan  ms again  wall s  MiB  computed")
    for scans in asked.scans:
        with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
            folder = Path(temporary)
            prepare(folder, scans)
            if asked.done:
                pretend(folder, asked.done)
            usage = run(folder, asked.kills, random.Random(asked.seed))
            computed = (folder / "computed").stat().st_size
            check(folder, scans)
            again = run(folder, 0, random.Random(asked.seed))
            check(folder, scans)
        new_s = usage.cpu_s - again.cpu_s * asked.done / scans
        print(
            f"{scans:7d}  {asked.done:5d}  {usage.kills:5d}  {new_s / (scans - asked.done) * 1000:20.1f}  "
            f"{again.cpu_s / scans * 1000:8.2f}  {usage.wall_s:6.0f}  {usage.memory_mib:3.0f}  {computed:8d}",
            flush=True,
        )


def prepare(folder: Path, scans: int) -> None:
    """Write the scans and a checkpoint."""
    import torch
    from step import options_of
    from synthetic import plan_of_ct, write_checkpoint

    from segpipe.nets.build import build

    options = options_of(["model.channels=[4,8]", "plan.spacing=[1,1,1]", "plan.patch=[8,8,8]"])
    plan = plan_of_ct(options, 1.0)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    torch.manual_seed(0)
    write_checkpoint(folder / "some.ckpt", options, plan, network)
    (folder / "in").mkdir()
    voxels = np.random.default_rng(0).integers(-100, 200, (8, 8, 8)).astype(np.int16)
    content = nib.Nifti1Image(voxels, np.eye(4)).to_bytes()
    for number in range(scans):
        (folder / f"in/scan_{number:06d}.nii").write_bytes(content)
    (folder / "computed").touch()


def pretend(folder: Path, done: int) -> None:
    """Give the first scans the mask and the record of a scan that was computed: all have one content."""
    from segpipe.prediction.record_store import RecordStore

    names = sorted(path.stem for path in (folder / "in").iterdir())[:done]
    inputs = folder / "in"
    os.rename(inputs, folder / "others")
    inputs.mkdir()
    os.link(folder / f"others/{names[0]}.nii", inputs / f"{names[0]}.nii")
    run(folder, 0, random.Random(0))
    os.unlink(inputs / f"{names[0]}.nii")
    inputs.rmdir()
    os.rename(folder / "others", inputs)
    store = RecordStore(folder / "out")
    record = store.records[names[0]]
    for name in names[1:]:
        shutil.copyfile(folder / f"out/{names[0]}.nii.gz", folder / f"out/{name}.nii.gz")
        files = {f"{name}.nii.gz": record.files[f"{names[0]}.nii.gz"]}
        store.write(replace(record, name=name, files=files, images=[str(inputs / f"{name}.nii")]))
    os.truncate(folder / "computed", 0)


def run(folder: Path, kills: int, rng: random.Random) -> Usage:
    """Let the processes fill the output; kill one of them now and then.

    A process that ends with another status than 0 ends the benchmark.
    """
    start = time.perf_counter()
    usage = Usage()
    running = [begin(folder) for _ in range(WORKERS)]
    next_kill = _later(folder, 0, rng)
    while running:
        settled = (folder / "computed").stat().st_size
        if usage.kills < kills and settled >= next_kill:
            time.sleep(rng.uniform(0, 0.2))
            os.kill(rng.choice(running), signal.SIGKILL)
        for process in list(running):
            ended, status, used = os.wait4(process, os.WNOHANG)
            if not ended:
                continue
            running.remove(process)
            usage.cpu_s += used.ru_utime + used.ru_stime
            usage.memory_mib = max(usage.memory_mib, used.ru_maxrss / 1024)
            if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
                usage.kills += 1
                running.append(begin(folder))
                next_kill = _later(folder, settled, rng)
            elif status:
                sys.exit(f"a process ended with status {os.waitstatus_to_exitcode(status)}")
        time.sleep(0.05)
    usage.wall_s = time.perf_counter() - start
    return usage


def _later(folder: Path, settled: int, rng: random.Random) -> int:
    """Return after how many scans in all the next process is killed."""
    scans = len(os.listdir(folder / "in"))
    return settled + rng.randint(1, max(1, scans // 20))


def begin(folder: Path) -> int:
    """Return the process id of a new worker."""
    call = [sys.executable, str(Path(__file__).resolve()), "--worker", str(folder)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = [(os.POSIX_SPAWN_OPEN, 1, str(folder / "log"), flags, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawn(sys.executable, call, os.environ, file_actions=log)


def work(folder: Path) -> int:
    """Predict all scans that no other process has claimed; return the exit status."""
    from segpipe.batch import predict_batch
    from segpipe.config.compose import defaults
    from segpipe.config.predict import Predict
    from segpipe.config.validation import validate
    from segpipe.data.prepare import PreparedScan
    from segpipe.prediction.maps import Maps
    from segpipe.prediction.predictor import Prediction, Predictor

    computed = os.open(folder / "computed", os.O_WRONLY | os.O_APPEND)

    def segment(self: Predictor, scan: PreparedScan, _progress: object) -> Prediction:
        os.write(computed, b".")
        maps = Maps(scan.grid, 0, self.plan.outputs, True, [])
        seconds = {"network": 0.0, "resample": 0.0}
        return Prediction(np.zeros(scan.grid.shape, np.uint8), scan, maps, seconds)

    Predictor.segment = segment  # type: ignore[method-assign, assignment]
    given = {
        "checkpoint": str(folder / "some.ckpt"),
        "input": str(folder / "in"),
        "output": str(folder / "out"),
        "device": "cpu",
        "overlays": False,
        "claim": True,
    }
    return predict_batch(validate(Predict, defaults("predict") | given))


def check(folder: Path, scans: int) -> None:
    """Check that each scan has one row in the table and the manifest, and a mask."""
    names = [f"scan_{number:06d}" for number in range(scans)]
    stored = json.loads((folder / "out/manifest.json").read_text())["scans"]
    with (folder / "out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    _compare("manifest.json", [row["name"] for row in stored], names)
    _compare("predictions.csv", [row["case"] for row in rows], names)
    masks = sorted(path.name for path in (folder / "out").glob("*.nii.gz"))
    _compare("masks", masks, [f"{name}.nii.gz" for name in names])


def _compare(what: str, found: Sequence[str], expected: Sequence[str]) -> None:
    if list(found) != list(expected):
        lost = len(set(expected) - set(found))
        sys.exit(f"{what}: {lost} scans are lost, {len(found) - len(set(found))} doubled")


if __name__ == "__main__":
    main()
