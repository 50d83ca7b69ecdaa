"""What the benchmarks of prediction share: CT-like scans of any size, and a checkpoint that `predict.py` opens."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation
from torch import nn
from turns import ROOT

from segpipe.checkpoint import KEY, NETWORK, find, metadata
from segpipe.config.train import Train
from segpipe.data.scanner import draw_grid, draw_scan
from segpipe.plan import Plan
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.rules import make_plan

BODY_MM, STEP_MM = (
    120.0,
    0.75,
)  # the phantom's body is a newborn's: what is seen of it, and in what steps it is drawn
LABELS = {"background": 0, "liver": 1, "kidneys": 2, "vessel": 3}
TRAIN_SHAPE, TRAIN_MM, CASES = (192, 192, 90), (2.0, 2.0, 2.5), 5
CT = (-120.0, 260.0, 90.0, 70.0)  # of labelled voxels: lowest, highest, mean and deviation, in HU


def write_ct(
    path: Path,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    seed: int,
    label: Path | None = None,
) -> None:
    """Writes the phantom as a CT of a body that fills the field of view, with fresh noise in each voxel.

    Args:
        path: of the scan.
        shape: voxels along its axes, which are those of LPS+.
        spacing_mm: voxel size along them.
        seed: of the body and of the noise.
        label: where the label map is written too.
    """
    rng = np.random.default_rng(seed)
    view = np.array(shape) * spacing_mm
    coarse = np.maximum(np.rint(view / view.max() * BODY_MM / STEP_MM), 8).astype(int)
    view_mm = coarse * STEP_MM
    grid = draw_grid(
        "LPS", Rotation.identity(), np.full(2, STEP_MM), view_mm, tuple((n, n) for n in coarse), rng
    )
    image, labels = draw_scan(grid, rng, ct=True)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    factors = np.array(shape) / coarse
    image = zoom(image, factors, order=1, grid_mode=True, mode="nearest")
    image += rng.normal(0, 20, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(np.rint(image.clip(-1024, 3071)).astype(np.int16), affine), path)
    if label is not None:
        labels = zoom(labels, factors, order=0, grid_mode=True, mode="nearest")
        nib.save(nib.Nifti1Image(labels, affine), label)


def plan_of_ct(options: Train, spacing_mm: float) -> Plan:
    """A plan for CT of one voxel size."""
    cases = np.full((1, 3), spacing_mm), np.full((1, 3), 320)
    seen = Fingerprint(*cases, cases[1], [0.0], [CT], {})
    return make_plan(options, seen, ["CT"], LABELS, "cpu")


def write_checkpoint(path: Path, options: Train, plan: Plan, network: nn.Module) -> None:
    """Writes a network as training does."""
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: metadata(options.model_dump(mode="json"), plan)}, path)


def trained(folder: Path, spacing_mm: float) -> Path:
    """A run of a minute and a half on a few phantoms, so that masks have insides and edges as masks have."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / "data" / kind).mkdir(parents=True)
    names = [f"case{number}.nii.gz" for number in range(CASES)]
    for number, name in enumerate(names):
        image, label = (folder / "data" / kind / name for kind in ("imagesTr", "labelsTr"))
        write_ct(image, TRAIN_SHAPE, TRAIN_MM, number + 1, label)
    about = {
        "modality": {"0": "CT"},
        "labels": {str(number): name for name, number in LABELS.items()},
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names
        ],
    }
    (folder / "data/dataset.json").write_text(json.dumps(about))
    mm = f"[{spacing_mm},{spacing_mm},{spacing_mm}]"
    call = ["train.py", "data=decathlon", f"data.root={folder}/data", f"data.cache={folder}/cache", "augment=none",
            "plan.patch=[64,64,64]", "plan.batch=2", f"plan.spacing={mm}", "trainer.max_time=00:00:01:30",
            "trainer.validations=1", f"hydra.run.dir={folder}/run"]  # fmt: skip
    subprocess.run([sys.executable, *call], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / "run"


def planned(run: Path, path: Path, **entries: object) -> Path:
    """Writes a run's network as a checkpoint whose plan has other entries."""
    stored = torch.load(find(run), weights_only=True)
    stored[KEY]["plan"].update(entries)
    torch.save({key: stored[key] for key in ("state_dict", KEY)}, path)
    return path
