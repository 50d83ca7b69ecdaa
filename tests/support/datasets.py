"""Datasets opened without the command line."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segpipe.config.data import Data
from segpipe.data.cases import Dataset
from segpipe.data.datasets import open_dataset


def read_dataset(layout: str, root: Path, **options: Any) -> Dataset:
    """The dataset in a folder, all options of `data` but its layout and those given at their usual values."""
    usual: dict[str, Any] = {
        "image_folder": "images",
        "label_folder": "labels",
        "labels": None,
        "images": None,
        "label": None,
        "suffixes": None,
        "columns": None,
        "group": None,
        "regions": None,
        "paint": None,
        "ignore_label": None,
    }
    return open_dataset(Data.model_construct(layout=layout, root=root, **usual | options))  # type: ignore[arg-type]


def write_cases(folder: Path, number: int) -> None:
    """Write cases of noise around two labels, one inside the other."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for index in range(number):
        label = np.zeros((20, 16, 12), np.uint8)
        label[4:12, 4:12, 3:9] = 1
        label[6:9, 6:9, 4:7] = 2
        image = (label + rng.normal(size=label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"images/case{index}.nii")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / f"labels/case{index}.nii")
