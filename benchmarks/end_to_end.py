"""A whole batch of prediction against the forward passes alone: what everything around the network costs.

    python benchmarks/end_to_end.py                                 # 10 scans of 320x320x160 at 1 mm
    python benchmarks/end_to_end.py --scans 3 --save mask entropy   # fewer, and more to write

The scans are CT-like phantoms, the network is the `unet3d` preset with random weights. One side is the command
`predict.py` as typed, from its start to its end, with all that it does by default (pictures, page, hashes). The other
is the forward passes of the very same windows, cut and normalised beforehand. They take turns: every few seconds the
command is halted and some forward passes are measured. No window is skipped as air.
"""

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from step import options_of
from synthetic import plan_of_ct, write_checkpoint, write_ct
from turns import in_turns

from segpipe.data.prepare import prepare_scan
from segpipe.device import choose_device, choose_format, computing_in
from segpipe.nets import build
from segpipe.prediction.predictor import Predictor
from segpipe.windows import predict_slabs

SHAPE, SPACING_MM = (320, 320, 160), (1.0, 1.0, 1.0)
PASSES = 6  # that are measured after each turn of the command


def main() -> None:
    """Prints the ratio, and where the time went."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        overrides = [f"plan.patch={[asked.patch] * 3}", f"plan.spacing={[asked.spacing] * 3}"]
        options = options_of(overrides)
        plan = plan_of_ct(options, asked.spacing)
        torch.manual_seed(0)
        network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels).eval()
        write_checkpoint(folder / "random.ckpt", options, plan, network)
        (folder / "scans").mkdir()
        for number in range(asked.scans):
            write_ct(folder / f"scans/scan{number:02d}.nii.gz", SHAPE, SPACING_MM, number)
        device = choose_device("auto")
        number_format = choose_format("auto", device)
        predictor = Predictor(network.to(device), plan, device, number_format, asked.overlap)
        scans = sorted((folder / "scans").iterdir())
        windows = cut(predictor, scans[0])
        forward(predictor, windows[:2])  # the first passes allocate
        call = [sys.executable, "predict.py", f"checkpoint={folder}/random.ckpt", f"input={folder}/scans",
                f"output={folder}/masks", f"overlap={asked.overlap}", "skip_air=false",
                f"save=[{','.join(asked.save)}]"]  # fmt: skip
        passes: list[float] = []

        def some_passes() -> None:
            one = windows[len(passes) % len(windows)]
            forward(predictor, [one])  # warms up
            passes.extend(forward(predictor, [one]) for _ in range(PASSES))

        whole = in_turns([call], some_passes)[0].seconds
        alone = len(scans) * len(windows) * sum(passes) / len(passes)
        with (folder / "masks/predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
    sizes = "x".join(map(str, SHAPE))
    print(f"{len(scans)} scans of {sizes}, {len(windows)} windows of {plan.patch} each, {device} in {number_format}")
    print(f"predict.py / forward passes: {whole / alone:.3f} ({whole:.1f} s, {alone:.1f} s from {len(passes)} passes)")
    for stage in ("read", "network", "resample", "write"):
        print(f"{stage}: {sum(float(row[f'{stage}_seconds']) for row in rows) / len(rows):.2f} s a scan")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--patch", type=int, default=96, help="edge of a window, voxels")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--spacing", type=float, default=1.0, help="of the network's grid, mm")
    parser.add_argument("--save", nargs="+", default=["mask"])
    return parser.parse_args()


def cut(predictor: Predictor, scan: Path) -> list[torch.Tensor]:
    """The batches of windows that the network sees of a scan, in their order."""
    plan, batches = predictor.plan, []
    image = prepare_scan([scan], plan).image.to(predictor.device)

    def keep(patches: torch.Tensor) -> torch.Tensor:
        batches.append(patches)
        return patches.new_zeros(len(patches), plan.outputs, *patches.shape[2:])

    for _ in predict_slabs(keep, image, plan.patch, plan.slice_axis, predictor.overlap, predictor.windows):
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
