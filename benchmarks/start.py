"""One small scan: from the command to the written mask, against the bare import of torch and the forward passes.

    python benchmarks/start.py

The scan is a test scan of the phantom, the network the `unet3d` preset with random weights. Each round measures, one
after the other, each in a process of its own: `import torch`; the forward passes of the scan's windows, which are the
first of their process as the command's are; `predict.py` until the mask is there and until it ends; its `--help`.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from turns import ROOT

ROUNDS, SPACING_MM = 9, 2.0


def main() -> None:
    """Prints medians and ratios."""
    if sys.argv[1:]:
        return passes(*map(Path, sys.argv[1:]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scan = prepared(folder)
        times = np.array([measured(folder, scan, number) for number in range(ROUNDS + 1)])[
            1:
        ]  # but the first
    torch_s, passes_s, mask_s, end_s, help_s = np.median(times, axis=0)
    bare = times[:, 0] + times[:, 1]
    print(
        f"medians of {ROUNDS} rounds: import torch {torch_s:.2f} s, forward passes {passes_s:.2f} s"
    )
    print(f"predict.py: mask after {mask_s:.2f} s, end after {end_s:.2f} s; --help {help_s:.2f} s")
    for name, column in (("command to written mask", 2), ("command to its end", 3)):
        low, middle, high = np.percentile(times[:, column] / bare, [25, 50, 75])
        print(
            f"{name} / (import torch + forward passes): {middle:.2f} (quartiles {low:.2f} to {high:.2f})"
        )


def prepared(folder: Path) -> Path:
    """Writes a scan and a checkpoint."""
    import torch
    from step import options_of
    from synthetic import plan_of_ct, write_checkpoint

    from segpipe.data.phantom import write_phantom
    from segpipe.nets.build import build

    options = options_of([f"plan.spacing=[{SPACING_MM},{SPACING_MM},{SPACING_MM}]"])
    plan = plan_of_ct(options, SPACING_MM)
    torch.manual_seed(0)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    write_checkpoint(folder / "random.ckpt", options, plan, network)
    return next((write_phantom(folder / "phantom", train=1, test=1) / "imagesTs").iterdir())


def measured(folder: Path, scan: Path, number: int) -> list[float]:
    """Seconds of a round."""
    python, output = sys.executable, folder / f"masks{number}"
    found = [seconds([python, "-c", "import torch"])]
    said = subprocess.run(
        [python, __file__, str(folder / "random.ckpt"), str(scan)], capture_output=True, check=True
    )
    found.append(float(said.stdout))
    call = ["predict.py", f"checkpoint={folder}/random.ckpt", f"input={scan}", f"output={output}"]
    start, mask = time.perf_counter(), 0.0
    with subprocess.Popen([python, *call], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if not mask and (output / scan.name).exists():
                mask = time.perf_counter() - start
            time.sleep(0.002)
    return [*found, mask, time.perf_counter() - start, seconds([python, "predict.py", "--help"])]


def seconds(call: list[str]) -> float:
    """Of a command."""
    start = time.perf_counter()
    subprocess.run(call, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def passes(checkpoint: Path, scan: Path) -> None:
    """Prints the seconds of a scan's forward passes."""
    from end_to_end import cut, forward

    from segpipe.prediction.predictor import Predictor

    predictor = Predictor.load(checkpoint)
    windows = cut(predictor, scan)
    print(forward(predictor, windows))


if __name__ == "__main__":
    main()
