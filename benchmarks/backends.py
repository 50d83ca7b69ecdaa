"""What computes a window of the `unet3d` preset on this CPU: PyTorch or OpenVINO, in float32 or bf16.

    python benchmarks/backends.py [PATCH]

Times are measured in turns in one run and given as ratios; beside them the voxels on whose label a way agrees with
PyTorch in float32. The weights are random, which is the worst case: nowhere is a network so unsure.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from step import options_of, plan_of

from segpipe.device import NumberFormat, computing_in, hold_memory
from segpipe.nets.build import build
from segpipe.prediction.backends import BackendRequest, with_backend

ROUNDS = 7
WAYS: list[tuple[str, NumberFormat]] = [
    ("torch", "float32"),
    ("torch", "bf16"),
    ("openvino", "float32"),
    ("openvino", "bf16"),
]


def main() -> None:
    """Prints a line per way."""
    edge, cpu = int(sys.argv[1]) if sys.argv[1:] else 96, torch.device("cpu")
    options = options_of([f"plan.patch=[{edge},{edge},{edge}]"])
    plan = plan_of(options)
    hold_memory(cpu)
    torch.manual_seed(0)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels).eval()
    x = torch.randn(1, 1, *plan.patch)
    ways = [
        with_backend(backend, network, BackendRequest(x.shape[1:], cpu, number_format))
        for backend, number_format in WAYS
    ]
    seconds = np.zeros((ROUNDS, len(ways)))
    labels = {}
    with torch.inference_mode():
        for each in range(-1, ROUNDS):  # the first warms up
            for place, (way, (_, number_format)) in enumerate(zip(ways, WAYS, strict=True)):
                start = time.perf_counter()
                with computing_in(number_format, cpu):
                    labels[place] = way(x).argmax(1)
                seconds[each, place] = time.perf_counter() - start
    print(
        f"a window of {edge}x{edge}x{edge}, {torch.get_num_threads()} threads, medians of {ROUNDS} rounds"
    )
    for place, (backend, number_format) in enumerate(WAYS):
        low, middle, high = np.percentile(seconds[:, 0] / seconds[:, place], [25, 50, 75])
        agree = 100 * float((labels[place] == labels[0]).float().mean())
        print(
            f"{backend:8s} {number_format:7s}: {np.median(seconds[:, place]):.3f} s, {middle:.2f} times as fast "
            f"(quartiles {low:.2f} to {high:.2f}), {agree:.3f} % of the voxels alike"
        )


if __name__ == "__main__":
    main()
