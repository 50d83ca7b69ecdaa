"""The price of the checks by which a batch trusts its files: whole call / the same call less the checks.

    python benchmarks/checks.py --scans DIR                       # 40 scans of a folder, as of the hippocampus
    python benchmarks/checks.py                                   # one CT-like scan of 512x512x200

Each check is timed where it is made, in seconds of CPU of its thread, while one call of `predict.py` runs in this
process with the default network (random weights): content hashes of scans, checkpoint and masks; the checkpoint's
checksums; the mask read back after it is written. That a packed scan is read to its end, where its checksum lies, has no
time of its own: our reader is timed beside nibabel's, which stops at the last voxel.
"""

import argparse
import os
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
import torch
from step import options_of
from synthetic import plan_of_ct, write_checkpoint, write_ct

from segpipe.batch import predict_batch
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.io import nifti
from segpipe.nets.build import build

CT_SHAPE, CT_MM = (512, 512, 200), (0.8, 0.8, 1.5)
SCANS = 40
CHECKS = {
    "hash: scan": "segpipe.engines.worker.digest",
    "hash: mask written": "segpipe.io.volumes.digest",
    "hash: mask there": "segpipe.prediction.records.digest",
    "hash: checkpoint": "segpipe.prediction.opening.digest",
    "mask read back": "segpipe.io.nifti.read",
}
Spent = Counter[str]


def main() -> None:
    """Print the seconds of each check, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=Path, help="a folder of NIfTI files, of which 40 are taken")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        if asked.scans is None:
            write_ct(folder / "in/ct.nii.gz", CT_SHAPE, CT_MM, 0)
        else:
            names = [name for name in sorted(os.listdir(asked.scans)) if not name.startswith(".")]
            for name in names[:SCANS]:
                os.symlink((asked.scans / name).resolve(), folder / "in" / name)
        prepare(folder, 1.0 if asked.scans else 1.5)
        report("first call", folder)
        report("again, nothing to do", folder)


def prepare(folder: Path, spacing_mm: float) -> None:
    """Write a checkpoint of the default network with random weights."""
    options = options_of([f"plan.spacing=[{spacing_mm},{spacing_mm},{spacing_mm}]"])
    plan = plan_of_ct(options, spacing_mm)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    write_checkpoint(folder / "random.ckpt", options, plan, network)


def report(name: str, folder: Path) -> None:
    """Call `predict.py` once, and print what the checks took of it."""
    given = {
        "checkpoint": str(folder / "random.ckpt"),
        "input": str(folder / "in"),
        "output": str(folder / "out"),
        "device": "cpu",
        "overlays": False,
    }
    spent: Spent = Counter()
    with timing(spent):
        start = time.process_time()
        status = predict_batch(validate(Predict, defaults("predict") | given))
        total = time.process_time() - start
    if status:
        sys.exit(f"predict.py ended with status {status}")
    checks = sum(spent.values())
    print(f"{name}: {total:.2f} s of CPU, with / without checks {total / (total - checks):.4f}")
    for check, seconds in sorted(spent.items()):
        print(f"    {check:24s} {seconds:7.3f} s  {total / (total - seconds):.4f}")
    ours, theirs = reading_to_the_end(sorted((folder / "in").iterdir()))
    print(f"    scans read to their end  {ours:7.3f} s, nibabel {theirs:.3f} s")


@contextmanager
def timing(spent: Spent) -> Iterator[None]:
    """Add up the seconds of each check while the block runs."""
    with ExitStack() as patches:
        for name, target in CHECKS.items():
            patches.enter_context(patch(target, _timed(name, _found(target), spent)))
        testzip = _timed("checksums of checkpoint", zipfile.ZipFile.testzip, spent)
        patches.enter_context(patch("zipfile.ZipFile.testzip", testzip))
        yield


def _found(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    return getattr(sys.modules[module], name)


def _timed(name: str, check: Callable[..., Any], spent: Spent) -> Callable[..., Any]:
    """Return the same function, which adds what it takes to `spent`."""

    def timed(*given: Any, **named: Any) -> Any:
        start = time.thread_time()
        try:
            return check(*given, **named)
        finally:
            is_scan = name == "mask read back" and ".segpipe-part-" not in str(given[0])
            if not is_scan:  # the scan itself is read by the same function
                spent[name] += time.thread_time() - start

    return timed


def reading_to_the_end(scans: Sequence[Path]) -> tuple[float, float]:
    """Return the seconds of our reader, and those of nibabel, which stops at the last voxel."""
    ours = 0.0
    theirs = 0.0
    for scan in scans:
        start = time.thread_time()
        nifti.read(scan)
        middle = time.thread_time()
        np.asanyarray(nib.load(scan).dataobj)
        ours += middle - start
        theirs += time.thread_time() - middle
    return ours, theirs


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
