"""Throughput of several worker processes of one call against one: `predict.py workers=N`.

    python benchmarks/workers.py                     # 1 and 2 workers, twice each in turn
    python benchmarks/workers.py --workers 1 2 4 --scans 24

The scans are noise of 96x96x64 voxels at 1.5 mm, resampled to 2 mm for a network of 1 to 2 million parameters. The rate is
taken between the first and the last scan that is done, so that neither the start of the processes nor the page counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPE = (96, 96, 64)


def main() -> None:
    """Print a line for each call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scans", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    print("workers  scans/min  CPU s a scan")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, asked.scans)
        for repeat in range(asked.repeats):
            for workers in asked.workers:
                output = folder / f"out_{workers}_{repeat}"
                cpu_s = predict(folder, output, workers)
                rate = rate_of(output / "predict.log")
                print(f"{workers:7d}  {rate:9.1f}  {cpu_s / asked.scans:12.2f}", flush=True)


def prepare(folder: Path, scans: int) -> None:
    """Write the scans and a checkpoint."""
    import torch
    from step import options_of
    from synthetic import plan_of_ct, write_checkpoint

    from segpipe.nets.build import build

    options = options_of(
        ["model.channels=[16,32,64]", "plan.spacing=[2,2,2]", "plan.patch=[64,64,48]"]
    )
    plan = plan_of_ct(options, 2.0)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    torch.manual_seed(0)
    write_checkpoint(folder / "some.ckpt", options, plan, network)
    (folder / "in").mkdir()
    random = np.random.default_rng(0)
    for number in range(scans):
        voxels = random.integers(-100, 200, SHAPE).astype(np.int16)
        image = nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 1.5, 1]))
        nib.save(image, folder / f"in/scan_{number:03d}.nii.gz")


def predict(folder: Path, output: Path, workers: int) -> float:
    """Predict all scans, and return the seconds of CPU of all processes."""
    before = os.times()
    subprocess.run(
        [
            sys.executable, str(REPOSITORY / "predict.py"), f"checkpoint={folder}/some.ckpt",
            f"input={folder}/in", f"output={output}", "device=cpu", "overlays=false",
            f"workers={workers}",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def rate_of(log: Path) -> float:
    """Return the scans per minute of a call, from the times of its log."""
    times = []
    for line in log.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) == 7 and words[4] == "of" and words[6].startswith("scan_"):
            times.append(datetime.fromisoformat(f"{words[0]} {words[1].replace(',', '.')}"))
    return 60 * (len(times) - 1) / (times[-1] - times[0]).total_seconds()


if __name__ == "__main__":
    main()
