"""nnU-Net v2 on a set of `datasets.py`: its own plan, the same split, the same minutes, the same machine.

    python benchmarks/datasets.py --data DIR --only usgra trainer.validations=1  # ours, and the split
    NNUNET/bin/python benchmarks/nnunet.py runs/datasets/usgra --minutes 10
    python -m segpipe.evaluate prediction=runs/datasets/usgra/nnunet/masks truth=runs/datasets/usgra/nnunet/truth \\
        output=runs/datasets/usgra/nnunet/scores

Runs in an environment of nnU-Net (`pip install nnunetv2`) and needs nothing of ours but the table of cases. Preparing
and predicting are outside the minutes, as they are outside `trainer.max_time`; nnU-Net's schedule of 1,000 epochs is
squeezed into them, so that its learning rate ends at 0 as well, and it validates once, at the end.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAME = "Dataset901_Set"


def main() -> None:
    """Prepare, train, predict, and say how long each took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of a set, with its cases.csv")
    parser.add_argument("--minutes", type=float, default=10, help="of training")
    parser.add_argument("--configuration", default="2d", help="of nnU-Net's plan: 2d or 3d_fullres")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    root = options.folder / "nnunet"
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str((root / name).absolute())
    start = time.perf_counter()
    prepare(options.folder / "cases.csv", root, options.configuration)
    prepared = time.perf_counter()
    trainer = train(root, options.configuration, options.device, 60 * options.minutes)
    trained = time.perf_counter()
    trainer.perform_actual_validation()
    found = Path(trainer.output_folder, "validation")
    (root / "masks").mkdir(exist_ok=True)
    for mask in found.glob(f"*{trainer.dataset_json['file_ending']}"):
        shutil.copy(mask, root / "masks")
    plan = trainer.configuration_manager
    print(
        f"patch {plan.patch_size}, batch {plan.batch_size}, spacing {plan.spacing}; "
        f"{trainer.steps} steps; prepared in {prepared - start:.0f} s, trained for "
        f"{trained - prepared:.0f} s, predicted in {time.perf_counter() - trained:.0f} s"
    )


def prepare(table: Path, root: Path, configuration: str) -> None:
    """Write the cases as nnU-Net wants them, with the labels to score against, and let it plan and preprocess."""
    import numpy as np

    with table.open(newline="") as file:
        cases = list(csv.DictReader(file))
    volumes = cases[0]["image"].endswith(".nii.gz")
    ending = ".nii.gz" if volumes else ".png"
    raw = root / "raw" / NAME
    for folder in (raw / "imagesTr", raw / "labelsTr", root / "truth", root / "preprocessed"):
        folder.mkdir(parents=True, exist_ok=True)
    labels: set[int] = set()
    channels = 1
    for case in cases:
        image, label = case["image"], case["label"]
        name = case["case"]
        if volumes:
            shutil.copy(image, raw / "imagesTr" / f"{name}_0000{ending}")
        else:
            channels = write_picture(image, raw / "imagesTr" / f"{name}_0000{ending}")
        shutil.copy(label, raw / "labelsTr" / f"{name}{ending}")
        labels |= set(np.unique(read(label)).tolist())
        if case["split"] == "val":
            shutil.copy(label, root / "truth" / f"{name}{ending}")
    ids = sorted(int(label) for label in labels)
    description = {
        "channel_names": {str(channel): f"channel{channel}" for channel in range(channels)},
        "labels": {"background": 0, **{f"label{label}": label for label in ids if label}},
        "numTraining": len(cases),
        "file_ending": ending,
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    command = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    subprocess.run(
        [command, "-d", "901", "-c", configuration, "-np", "2", "-npfp", "2"], check=True
    )
    split = [
        {
            "train": [case["case"] for case in cases if case["split"] == "train"],
            "val": [case["case"] for case in cases if case["split"] == "val"],
        }
    ]
    (root / "preprocessed" / NAME / "splits_final.json").write_text(json.dumps(split))


def write_picture(image: str, target: Path) -> int:
    """Write a picture as PNG without its opacity; return its number of channels."""
    from PIL import Image

    with Image.open(image) as picture:
        mode = "L" if picture.mode in ("L", "1") else "RGB"
        picture.convert(mode).save(target)
    return len(mode)


def read(label: str) -> Any:
    """Return the voxels of a label map."""
    from skimage import io

    if label.endswith(".png"):
        return io.imread(label)
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(label))


def train(root: Path, configuration: str, device: str, seconds: float) -> Any:
    """Train nnU-Net's network for a time; return its trainer, with the `steps` that it made."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args(NAME, configuration, 0, device=torch.device(device))
    trainer.on_train_start()
    trainer.network.train()
    trainer.steps = 0
    start = time.perf_counter()
    while (done := (time.perf_counter() - start) / seconds) < 1:
        trainer.lr_scheduler.step(done * trainer.num_epochs)
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        trainer.steps += 1
        if trainer.steps % 10 == 1:
            print(f"step {trainer.steps}, {done:.0%} of the time, loss {loss:.3f}", flush=True)
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()  # ends its processes, as nnU-Net does
    return trainer


if __name__ == "__main__":
    main()
