"""Memory of a prediction with many labels: 60 of them, a scan of 512x512x400 voxels, a network grid of 1.5 mm.

    python benchmarks/slabs.py [PATCH]

All logits on the scan's grid would be 25 GB. The network is one convolution, since what is measured is what lies around
it. Printed is the peak of the resident memory above what was resident before the scan was read.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
import torch
from memory import _reset, _status
from step import options_of, plan_of
from torch import nn

from segpipe.io.volumes import read_grid
from segpipe.prediction.inference_plan import fallbacks
from segpipe.prediction.predictor import Predictor

LABELS, SHAPE, SPACING_MM, MODEL_MM = 60, (512, 512, 400), (0.75, 0.75, 1.0), 1.5


def main() -> None:
    """Prints MiB and seconds."""
    patch = int(sys.argv[1]) if sys.argv[1:] else 96
    spacing, sizes = (
        f"plan.spacing=[{MODEL_MM},{MODEL_MM},{MODEL_MM}]",
        f"plan.patch=[{patch},{patch},{patch}]",
    )
    plan = plan_of(options_of([spacing, sizes]))
    names = {"background": 0} | {f"label {number}": number for number in range(1, LABELS + 1)}
    plan = plan.model_copy(update={"labels": names})
    device = torch.device("cpu")
    predictor = Predictor(
        nn.Conv3d(1, LABELS + 1, 1).eval(), plan, device, overlap=0.25, batch_size=1
    )
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scan.nii"
        voxels = np.random.default_rng(0).integers(-1000, 1000, SHAPE, np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([*SPACING_MM, 1])), scan)
        del voxels
        needed = predictor.workload.forecast(read_grid(scan), fallbacks(device, 1)[0]).host
        before, start = _reset(device), time.perf_counter()
        prediction = predictor.predict([scan])
        peak = (_status("VmHWM") - before) / 2**20
    assert prediction.labels.shape == SHAPE
    logits = (LABELS + 1) * np.prod(SHAPE) * 4 / 2**20
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in prediction.seconds.items())
    print(f"{LABELS} labels, {'x'.join(map(str, SHAPE))}, patch {patch}: peak {peak:.0f} MiB")
    print(
        f"forecast {needed:.0f} MiB with another scan read meanwhile: {needed / peak:.2f} times the peak"
    )
    print(
        f"the scan as float32 is {np.prod(SHAPE) * 4 / 2**20:.0f} MiB, all logits would be {logits:.0f} MiB"
    )
    print(f"seconds: {seconds}, in all {time.perf_counter() - start:.1f}")


if __name__ == "__main__":
    main()
