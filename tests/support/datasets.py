"""Datasets opened without the command line."""

from pathlib import Path
from typing import Any

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
