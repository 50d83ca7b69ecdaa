"""Cutting and changing a patch, ours against MONAI's way, as ratios measured in turns in one run.

python benchmarks/augment.py
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from monai.data.meta_obj import set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandCropByLabelClassesd, SpatialPadd
from monai.transforms.intensity.dictionary import RandGaussianNoised, RandGaussianSmoothd
from monai.transforms.spatial.dictionary import RandAffined, RandGridDistortiond

from segpipe.data.intensity import RandBlurd, RandNoised
from segpipe.data.patch_sampler import PatchSampler
from segpipe.data.warp import RandWarpd
from segpipe.device import hold_memory

PATCH, CUT, ROUNDS, TIMES = (40, 56, 40), (46, 65, 46), 12, 20
BOTH, MODES = ("image", "label"), ("bilinear", "nearest")
ANGLES, SIZES, DEVIATION = [math.radians(30)] * 3, [0.4] * 3, (0.5, 1.0)
CASE, SHARES = (35, 51, 35), [0.2, 0.4, 0.4]


def milliseconds(transform: Callable[[Any], Any], given: dict[str, Any]) -> float:
    """Milliseconds a patch."""
    start = time.perf_counter()
    for _ in range(TIMES):
        transform(given)
    return (time.perf_counter() - start) / TIMES * 1e3


def main() -> None:
    """Prints the ratios."""
    hold_memory(torch.device("cpu"))
    set_track_meta(False)
    case, patch = (
        {
            "image": torch.randn(1, *size),
            "label": torch.randint(0, 3, (1, *size), dtype=torch.uint8),
        }
        for size in (CASE, CUT)
    )
    indices = [np.flatnonzero(case["label"].numpy() == label) for label in range(3)]
    crop = RandCropByLabelClassesd(
        BOTH, "label", CUT, list(SHARES), 3, indices_key="indices", allow_smaller=True, warn=False
    )
    cut = PatchSampler(CUT, SHARES)
    turn: Any = RandAffined(
        BOTH,
        PATCH,
        1,
        rotate_range=ANGLES,
        scale_range=SIZES,
        mode=MODES,
        padding_mode="zeros",
        cache_grid=True,
    )
    bend: Any = RandGridDistortiond(BOTH, prob=1, mode=MODES, padding_mode="zeros")  # type: ignore[arg-type]
    ways: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], dict[str, Any]]] = {
        "cut": (
            lambda given: cut(**given, seed=0),
            Compose([crop, SpatialPadd(BOTH, CUT)]),
            case | {"indices": indices},
        ),
        "turned and scaled": (RandWarpd(PATCH, 1.0, ANGLES, SIZES, 0.0, []), turn, patch),
        "... and bent": (
            RandWarpd(PATCH, 1.0, ANGLES, SIZES, 1.0, [0, 1, 2]),
            Compose([bend, turn]),
            patch,
        ),
        "noise": (RandNoised(1.0, 0.3), RandGaussianNoised("image", prob=1, std=0.3), patch),
        "blur": (
            RandBlurd(1.0, DEVIATION),
            RandGaussianSmoothd("image", DEVIATION, DEVIATION, DEVIATION, prob=1),
            patch,
        ),
    }
    for name, (ours, theirs, given) in ways.items():
        rounds = range(ROUNDS + 1)
        times = np.array([(milliseconds(ours, given), milliseconds(theirs, given)) for _ in rounds])
        times = times[1:]  # the first warms up
        low, middle, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75])
        mean = " and ".join(f"{value:.2f}" for value in np.median(times, axis=0))
        print(
            f"{name}, ours / MONAI's: {middle:.3f} (quartiles {low:.3f} to {high:.3f}); {mean} ms a patch"
        )


if __name__ == "__main__":
    main()
