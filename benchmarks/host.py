"""What a host does for each scan that a GPU segments: seconds of CPU and bytes, for the plan of many GPUs.

python benchmarks/host.py            # a CT of 320x320x160 and one of 256x256x80
python benchmarks/host.py --runs 5
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np

SHAPES = ((320, 320, 160), (256, 256, 80))


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    print("         shape  MiB in  MiB out  s of CPU: hash and read  prepare  write")
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as temporary:
            measure(Path(temporary), shape, runs)


def measure(folder: Path, shape: tuple[int, int, int], runs: int) -> None:
    """Print the least seconds of CPU of some runs, one thread each."""
    import torch
    from step import options_of
    from synthetic import plan_of_ct

    from segpipe.data.prepare import prepare_scan
    from segpipe.files import digest
    from segpipe.io.volumes import read_voxels, write_mask

    torch.set_num_threads(1)
    plan = plan_of_ct(options_of(["model.channels=[4,8]", "plan.spacing=[1.5,1.5,1.5]"]), 1.5)
    scan = folder / "scan.nii.gz"
    smooth = np.add.outer(
        np.add.outer(np.arange(shape[0]), np.arange(shape[1])), np.arange(shape[2])
    )
    noise = np.random.default_rng(0).normal(0, 20, shape)
    voxels = (smooth % 400 - 100 + noise).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([0.8, 0.8, 1.5, 1])), scan)
    mask = (smooth % 400 > 300).astype(np.uint8)
    read_s = least(lambda: (digest([scan]), read_voxels(scan, "refuse")), runs)
    prepare_s = least(lambda: prepare_scan([scan], plan), runs)
    write_s = least(
        lambda: write_mask(mask, scan, folder / "mask.nii.gz", np.dtype(np.uint8)), runs
    )
    sizes = [file.stat().st_size / 2**20 for file in (scan, folder / "mask.nii.gz")]
    text = "x".join(map(str, shape))
    print(
        f"{text:>14}  {sizes[0]:6.1f}  {sizes[1]:7.2f}  {read_s:23.2f}  {prepare_s - read_s:7.2f}  {write_s:5.2f}"
    )


def least(work: Callable[[], object], runs: int) -> float:
    """Return the least seconds of CPU of some runs."""
    found = []
    for _ in range(runs):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


if __name__ == "__main__":
    main()
