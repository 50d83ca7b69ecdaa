"""A whole batch of prediction against the forward passes alone: what everything around the network costs.

    python benchmarks/end_to_end.py                                 # 10 scans of 320x320x160 at 1 mm
    python benchmarks/end_to_end.py --scans 3 --save mask entropy   # fewer, and more to write
    python benchmarks/end_to_end.py --checkpoint RUN                # a network that `monai_way.py --keep RUN` has left

The scans are CT-like phantoms, the network is the `unet3d` preset, trained for a minute and a half first. One side is
the command `predict.py` as typed, from its start to its end, with all that it does by default (pictures, page, hashes).
The other is the forward passes of the very same windows, cut and normalised beforehand, each in a process of their own:
as PyTorch does them, and with the memory held as our commands do (`segpipe.device.hold_memory`). They take turns: every
few seconds the command is halted and some forward passes are measured. No window is skipped as air.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from synthetic import planned, trained, write_ct
from turns import in_turns

from segpipe.data.prepare import prepare_scan
from segpipe.device import computing_in, hold_memory
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.segmenting import windowing_of
from segpipe.windows import predict_slabs

SHAPE, SPACING_MM = (320, 320, 160), (1.0, 1.0, 1.0)
PASSES = 4  # that are measured after each turn of the command


def main() -> None:
    """Prints the ratios."""
    if sys.argv[1:2] == ["--passes"]:
        return passes(*sys.argv[2:])
    asked = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        network = planned(
            asked.checkpoint or trained(folder, asked.spacing),
            folder / "network.ckpt",
            patch=[asked.patch] * 3,
            spacing_mm=[asked.spacing] * 3,
        )
        (folder / "scans").mkdir()
        for number in range(asked.scans):
            write_ct(folder / f"scans/scan{number:02d}.nii.gz", SHAPE, SPACING_MM, number)
        scans = sorted((folder / "scans").iterdir())
        call = [sys.executable, "predict.py", f"checkpoint={network}", f"input={folder}/scans",
                f"output={folder}/masks", f"overlap={asked.overlap}", "skip_air=false",
                f"save=[{','.join(asked.save)}]"]  # fmt: skip
        sides = [[sys.executable, __file__, "--passes", str(network), str(scans[0]), str(asked.overlap), held]
                 for held in ("bare", "held")]  # fmt: skip
        with ExitStack() as stack:
            bare, held = [stack.enter_context(Passes(side)) for side in sides]
            whole = in_turns([call], lambda: [side.some() for side in (bare, held)])[0].seconds
    sizes = "x".join(map(str, SHAPE))
    print(f"{len(scans)} scans of {sizes}, {bare.about}")
    for name, side in (("", bare), (", memory held", held)):
        alone = len(scans) * side.windows * sum(side.seconds) / len(side.seconds)
        taken = f"{whole:.1f} s, {alone:.1f} s from {len(side.seconds)} passes"
        print(f"predict.py / forward passes{name}: {whole / alone:.3f} ({taken})")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--patch", type=int, default=96, help="edge of a window, voxels")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--spacing", type=float, default=1.0, help="of the network's grid, mm")
    parser.add_argument(
        "--checkpoint", type=Path, help="a run on CT-like phantoms, instead of training one"
    )
    parser.add_argument("--save", nargs="+", default=["mask"])
    return parser.parse_args()


class Passes:
    """A process that waits, and makes some forward passes whenever it is asked."""

    def __init__(self, call: list[str]) -> None:
        self.call = call
        self.seconds: list[float] = []

    def __enter__(self) -> "Passes":
        self.process = subprocess.Popen(
            self.call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.windows, self.about = json.loads(self._line())
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def some(self) -> None:
        """Adds the seconds of some passes."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds += json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def passes(network: str, scan: str, overlap: str, held: str) -> None:
    """Makes forward passes of a scan's windows, some for each line that it reads."""
    predictor = Predictor.load(network, overlap=float(overlap))
    if held == "held":
        hold_memory(predictor.device)
    windows = cut(predictor, Path(scan))
    forward(predictor, windows[:2])  # the first passes allocate
    about = f"{len(windows)} windows of {predictor.plan.patch}, {predictor.device} in {predictor.number_format}"
    print(json.dumps([len(windows), about]), flush=True)
    for turn, _ in enumerate(sys.stdin):
        one = windows[turn * PASSES % len(windows)]
        forward(predictor, [one])  # warms up
        print(json.dumps([forward(predictor, [one]) for _ in range(PASSES)]), flush=True)


def cut(predictor: Predictor, scan: Path) -> list[torch.Tensor]:
    """The batches of windows that the network sees of a scan, in their order."""
    plan, batches = predictor.plan, []
    image = prepare_scan([scan], plan).image.to(predictor.device)

    def keep(patches: torch.Tensor) -> torch.Tensor:
        batches.append(patches)
        return patches.new_zeros(len(patches), plan.outputs, *patches.shape[2:])

    windowing = windowing_of(plan, predictor.overlap)
    for _ in predict_slabs(keep, image, windowing, predictor.batch_size):
        pass
    return batches


@torch.inference_mode()
def forward(predictor: Predictor, windows: list[torch.Tensor]) -> float:
    """Seconds of the network alone."""
    start = time.perf_counter()
    for patches in windows:
        with computing_in(predictor.number_format, predictor.device):
            predictor.network(patches)
    if predictor.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
