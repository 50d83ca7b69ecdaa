"""What a patch costs from the cache: 1,000 patches of 96x96x96 voxels out of 20 volumes of 512x512x200.

    python benchmarks/cache.py [FOLDER]

Patches are drawn as in training, without augmentation. The folder takes 5 GB and is left empty.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from step import options_of, plan_of

from segpipe.data.cases import Case
from segpipe.data.patches import Patches
from segpipe.data.prepared_case import PreparedCase

VOLUMES, SHAPE, PATCHES, SIZE = 20, (512, 512, 200), 1000, 96
GIB = 2**30


def main() -> None:
    """Prints seconds, their ratio to reading whole volumes, and the memory."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as folder:
        entries = [_write(Path(folder) / str(number), number) for number in range(VOLUMES)]
        options = options_of(
            ["augment=none", f"plan.patch=[{SIZE},{SIZE},{SIZE}]", f"data.cache={folder}/none"]
        )
        patches = Patches([], plan_of(options), options)
        patches.cases = [Case(str(number), (), None) for number in range(VOLUMES)]
        patches.entries = places
        patches.held = None  # together they are larger than what stays open
        seconds = []
        for number in range(PATCHES):
            start = time.perf_counter()
            assert patches[number]["image"].shape == (1, SIZE, SIZE, SIZE)
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
        whole = []
        for entry in entries:
            start = time.perf_counter()
            case = PreparedCase.load(entry)
            case.image.clone(), case.label.clone()
            whole.append(time.perf_counter() - start)
    low, middle, high = np.percentile(seconds, [5, 50, 95]) * 1000
    print(f"{PATCHES} patches of {SIZE}^3 from {VOLUMES} volumes of {'x'.join(map(str, SHAPE))}")
    print(
        f"a patch: median {middle:.1f} ms (5 to 95 %: {low:.1f} to {high:.1f}), the first {seconds[0] * 1000:.1f} ms"
    )
    print(
        f"a whole volume: median {np.median(whole) * 1000:.0f} ms; ratio {middle / 1000 / np.median(whole):.4f}"
    )
    print(f"resident memory at most {peak:.2f} GiB, what wrote the volumes included")


def _write(entry: Path, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    image = torch.from_numpy(generator.standard_normal((1, *SHAPE), np.float32))
    label = torch.from_numpy(generator.integers(0, 4, (1, *SHAPE), np.uint8))
    PreparedCase(
        image, label, [generator.integers(0, image.numel(), 100_000) for _ in range(4)]
    ).save(entry)
    return entry


if __name__ == "__main__":
    main()
